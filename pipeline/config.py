"""Configuration: one frozen pydantic model per stage, TOML in, JSON out.

A setting comes from, later over earlier: the defaults of the model, a shipped preset, ``--config``
(a TOML file), ``--set a.b=c``, and the few options of the command line. A model describes each of
its settings in the docstring below the field; the option of the setting shows it as its help.
"""

import copy
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from pipeline.errors import ConfigError, RunFolderError
from pipeline.wording import in_series


@dataclass(frozen=True)
class PathRole:
    """What the path of a setting names."""

    kind: Literal["file", "folder", "path", "store", "teacher"]
    is_input: bool = True
    """Whether it must exist before the stage begins."""


InputFile = Annotated[Path, PathRole("file")]
InputFolder = Annotated[Path, PathRole("folder")]
InputPath = Annotated[Path, PathRole("path")]
OutputFile = Annotated[Path, PathRole("file", is_input=False)]
OutputFolder = Annotated[Path, PathRole("folder", is_input=False)]


class ComponentConfig(BaseModel):
    """Settings of one part of a stage: frozen, and an unknown name is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True
    )


class StageConfig(ComponentConfig):
    """All settings of one stage."""

    resumable_changes: ClassVar[frozenset[str]] = frozenset()
    """Dotted names (or their beginnings) that may differ when a run is resumed."""
    own_defaults: ClassVar[Mapping[str, object]] = {}
    """Dotted names of inner settings -> their defaults in this stage, where the part's differ."""

    def to_json(self) -> str:
        """Return the whole configuration, defaults included, as indented JSON."""
        return self.model_dump_json(indent=2) + "\n"


StageT = TypeVar("StageT", bound=StageConfig)

CONFIG_FILE = "config.json"
"""File of a run folder that holds all settings of the run."""


def load_config(
    stage: type[StageT],
    *,
    begun: Mapping[str, object] | None = None,
    preset: Path | None = None,
    config_file: Path | None = None,
    overrides: Sequence[str] = (),
    fields: Mapping[str, object] | None = None,
    option_names: Mapping[str, str] = {},
) -> StageT:
    """Build the configuration of a stage from all its sources, see ``merge_settings``.

    option_names: dotted name of a setting -> the option that sets it, which messages name.

    Raises:
        ConfigError: a source cannot be read, a name is unknown, or a value is out of range.
    """
    settings = merge_settings(preset, config_file, overrides, fields or {}, begun or {})
    return validate_config(stage, settings, option_names)


def merge_settings(
    preset: Path | None,
    config_file: Path | None,
    overrides: Sequence[str],
    fields: Mapping[str, object],
    begun: Mapping[str, object] = {},
) -> dict[str, object]:
    """Return the nested settings of all sources.

    begun: nested settings of the run that is resumed, over which all others go.

    overrides: ``a.b=c``, where c is a TOML value or else a bare string.
    fields: dotted name -> value of explicit options; None means not given.

    Raises:
        ConfigError: a source cannot be read, or a value is set as a group.
    """
    settings = copy.deepcopy(dict(begun))
    for path in (preset, config_file):
        if path is not None:
            _merge(settings, _read_toml(path))
    for override in overrides:
        name, value = _parse_override(override)
        _assign(settings, name, value)
    for name, value in fields.items():
        if value is not None:
            _assign(settings, name, value)
    return settings


def validate_config(
    stage: type[StageT], settings: Mapping[str, object], option_names: Mapping[str, str] = {}
) -> StageT:
    """Build a configuration from nested settings; the first fault becomes a ConfigError."""
    try:
        return stage.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(_first_fault(stage, error, option_names)) from error


def parse_config(stage: type[StageT], text: str | bytes, source: str) -> StageT:
    """Build a configuration from its JSON, as ``to_json`` wrote it.

    source: where the text came from, for the message of a ConfigError.
    """
    try:
        return stage.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_fault(stage, error, {})}") from error


def changed_settings(old: StageConfig, new: StageConfig) -> Iterator[tuple[str, object, object]]:
    """Yield (dotted name, old value, new value) of every setting that differs, in order."""
    before, after = flat_settings(old), flat_settings(new)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield name, before.get(name), after.get(name)


def flat_settings(config: StageConfig) -> dict[str, object]:
    """Return all settings by their dotted names, in order, as JSON has them."""
    return dict(_leaves(config.model_dump(mode="json")))


def read_begun(config_file: Path) -> dict[str, object]:
    """Return the nested settings of a run from its config.json.

    Raises:
        RunFolderError: there is no run.
    """
    if not config_file.is_file():
        raise RunFolderError(
            f"there is no run in {config_file.parent} (no config.json); check --run-folder, or "
            "leave --resume out to start one"
        )
    settings: dict[str, object] = json.loads(config_file.read_bytes())
    return settings


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _parse_override(override: str) -> tuple[str, object]:
    name, separator, text = override.partition("=")
    name, text = name.strip(), text.strip()
    if not separator or not name:
        raise ConfigError(
            f"--set {override!r} is not of the form name=value, for example epochs=10"
        )
    try:
        return name, tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return name, text


def _merge(settings: dict[str, object], more: Mapping[str, object]) -> None:
    for name, value in more.items():
        branch = settings.get(name)
        if isinstance(value, dict) and isinstance(branch, dict):
            _merge(branch, value)
        else:
            settings[name] = value


def _assign(settings: dict[str, object], dotted_name: str, value: object) -> None:
    *parents, leaf = dotted_name.split(".")
    branch = settings
    for parent in parents:
        below = branch.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{dotted_name} is set, but {parent} is a value, not a group")
        branch = below
    branch[leaf] = value


def _first_fault(
    stage: type[BaseModel], error: ValidationError, option_names: Mapping[str, str]
) -> str:
    """Describe the first fault; settings that are missing are one fault together."""
    faults = error.errors(include_url=False)
    fault = faults[0]
    *parents, leaf = (str(part) for part in fault["loc"]) if fault["loc"] else ("",)
    owner, names, kinds = _owner_at(stage, parents)
    name = ".".join((*names, leaf))
    if fault["type"] == "extra_forbidden":
        known = ", ".join(_settable(owner)) if owner else "none"
        return f"unknown setting {' '.join((name, *kinds))}; known here: {known}"
    if fault["type"] == "missing":
        settings = [".".join(map(str, f["loc"])) for f in faults if f["type"] == "missing"]
        missing = [option_names.get(setting, f"the setting {setting}") for setting in settings]
        return f"{in_series(missing)} must be given; --help describes all options"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{_named(name, option_names)} is {fault['input']!r}: {message}" if name else message


def _named(name: str, option_names: Mapping[str, str]) -> str:
    option = option_names.get(name)
    if option is None:
        return f"the setting {name}"
    is_alike = option.lstrip("-").replace("-", "_").lower() == name
    return option if is_alike else f"{option} ({name})"


def _owner_at(
    stage: type[BaseModel], location: Sequence[str]
) -> tuple[type[BaseModel] | None, list[str], list[str]]:
    """Return the model at a location, the names that lead to it, and the members of unions."""
    owner: type[BaseModel] | None = stage
    names: list[str] = []
    kinds: list[str] = []
    members: dict[str, type[BaseModel]] = {}
    for part in location:
        if members:  # the location names the member of a union after its field
            owner, members = members.get(part), {}
            kinds.append(f"({names[-1]} of {part})")
            continue
        names.append(part)
        field = owner.model_fields.get(part) if owner else None
        members = _members_of(field)
        kind = field.annotation if field else None
        owner = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
    return owner, names, kinds


def _settable(model: type[BaseModel]) -> list[str]:
    """Return the names of a model's settings, without the mark that tells members of a union."""
    fields = model.model_fields.items()
    return [name for name, field in fields if len(get_args(field.annotation)) != 1]


def _members_of(field: FieldInfo | None) -> dict[str, type[BaseModel]]:
    """Return the models of a union of settings, by the value of the field that tells them apart."""
    if field is None or not isinstance(field.discriminator, str):
        return {}
    return {
        model.model_fields[field.discriminator].default: model
        for model in get_args(field.annotation)
    }


def _leaves(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
