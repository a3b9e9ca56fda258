"""The file of a sweep: its question, the settings that all arms share, and its arms.

The file is TOML. Its first line is the question, as a comment or as ``question = "..."``. Settings
are those of ``train-student``, as nested tables or by dotted names in quotes.
"""

import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from pipeline.config import ComponentConfig
from pipeline.errors import ConfigError

Value = bool | int | float | str | list[Any]
Settings = Mapping[str, Value]
"""Settings of ``train-student`` by dotted name."""
_PLACEHOLDER = re.compile(r"\{([a-z0-9_]+)\}")


def _flat(tree: Any) -> Any:
    return dict(_leaves(tree)) if isinstance(tree, Mapping) else tree


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Value]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


FlatSettings = Annotated[dict[str, Any], BeforeValidator(_flat)]
PersonViews = Annotated[int, Field(ge=1)]


class Sweep(ComponentConfig):
    """The content of a sweep's file."""

    question: str = Field(min_length=1)
    baseline: str
    """Name of the arm that the others are compared with, unless they name their own; with a grid,
    that of the same point."""
    preset: str = "distilpose-xs"
    """Shipped settings of ``train-student`` that all arms begin with; an arm may name another."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    """Seeds of the trainings; each arm is trained once with each of them."""
    person_views: PersonViews | None = None
    """Number of person-views of each training, rounded to whole epochs; by default the number of
    epochs is that of the settings. An arm may set its own."""
    validations: int = Field(10, ge=1)
    """Number of validations of a training whose length is given in person-views."""
    weights: Literal["last", "best"] = "last"
    """Weights that are measured: those of the last epoch, or the best by validation, which are
    chosen by the very people that are reported if there are no others."""
    settings: FlatSettings = Field(default_factory=dict)
    """Settings of ``train-student`` that all arms share."""
    grid: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Values of settings; every combination of them is an arm."""
    arms: dict[str, FlatSettings] = Field(default_factory=dict)
    """Settings of each named arm; with a grid, each of them is trained at every point."""


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    name: str
    baseline: str
    """Name of the arm that it is compared with; its own for a baseline."""
    preset: str
    person_views: int | None
    settings: Settings
    """Those in which it differs from the other arms."""

    def run_name(self, seed: int) -> str:
        """Return the name of the run folder of one of its trainings."""
        return f"{_as_file_name(self.name)}-seed{seed}"


def read_sweep(path: Path) -> Sweep:
    """Read the file of a sweep.

    Raises:
        ConfigError: it cannot be read, or does not begin with a question, or a field is at fault.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read the sweep {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    first_line = text.partition("\n")[0].strip()
    if first_line.startswith("#"):
        document.setdefault("question", first_line.lstrip("# "))
    elif not first_line.startswith("question"):
        raise ConfigError(
            f"the first line of {path} must be the question of the sweep, as a comment or as "
            f'question = "...", got {first_line!r}'
        )
    try:
        return Sweep.model_validate(document)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            known = ", ".join(Sweep.model_fields)
            raise ConfigError(
                f"{path}: {name} is no field of a sweep; known: {known}; settings of train-student "
                "go below [settings], [grid] or [arms.NAME]"
            ) from error
        raise ConfigError(f"{path}: {name}: {fault['msg']}") from error


def arms_of(sweep: Sweep, fill: Mapping[str, str] | None = None) -> list[Arm]:
    """Return the arms of a sweep, in order.

    fill: values of the placeholders ``{name}`` in the settings of arms, such as files.

    Raises:
        ConfigError: there is no arm or no such baseline, two arms have one name, an arm sets what
            the grid varies, or a placeholder has no value.
    """
    points = [
        (" ".join(f"{_short(name, sweep.grid)}={_words(value)}" for name, value in point), point)
        for point in itertools.product(
            *([(name, value) for value in values] for name, values in sweep.grid.items())
        )
    ]
    arms: list[Arm] = []
    for name, own in (sweep.arms or {"": {}}).items():
        if both := sorted(own.keys() & sweep.grid.keys()):
            raise ConfigError(
                f"the arm {name!r} sets {both[0]}, which the grid varies; set it once"
            )
        settings = {key: value for key, value in own.items() if key not in _OF_THE_SWEEP}
        for label, point in points:
            arms.append(
                Arm(
                    name=_join(name, label),
                    baseline=_baseline(own, sweep, label),
                    preset=str(own.get("preset", sweep.preset)),
                    person_views=_budget(own, sweep, name),
                    settings=_filled({**settings, **dict(point)}, fill or {}, name),
                )
            )
    names = [arm.name for arm in arms]
    if not sweep.arms and not sweep.grid:
        raise ConfigError("the sweep has no arm; name arms in [arms.NAME], or values in [grid]")
    for arm in arms:
        if arm.baseline not in names:
            raise ConfigError(
                f"the baseline {arm.baseline!r} is no arm, expected one of {', '.join(names)}"
            )
    _require_different([_as_file_name(name) for name in names], names)
    return arms


def chosen_arms(arms: Sequence[Arm], only: Sequence[str]) -> list[Arm]:
    """Return the arms of these names; all of them where none is given.

    Raises:
        ConfigError: a name is that of no arm.
    """
    names = [arm.name for arm in arms]
    if unknown := [name for name in only if name not in names]:
        raise ConfigError(f"there is no arm {unknown[0]!r}; arms: {', '.join(names)}")
    return [arm for arm in arms if not only or arm.name in only]


def varied_settings(sweep: Sweep) -> set[str]:
    """Return the names of the settings in which arms differ: those of the grid and of any arm."""
    of_arms = {name for arm in sweep.arms.values() for name in arm}
    return (of_arms | sweep.grid.keys()) - _OF_THE_SWEEP


def as_toml(value: object) -> str:
    """Return a value as TOML, for ``--set``; JSON writes strings, lists and numbers alike."""
    return json.dumps(value, allow_nan=False)


_OF_THE_SWEEP = {"baseline", "preset", "person_views"}
"""Names in an arm that are no settings of ``train-student``."""


def _budget(own: Settings, sweep: Sweep, name: str) -> int | None:
    found = own.get("person_views", sweep.person_views)
    if found is None or (isinstance(found, int) and not isinstance(found, bool) and found > 0):
        return found
    raise ConfigError(f"person_views of the arm {name!r} is {found!r}; expected a number above 0")


def _baseline(own: Settings, sweep: Sweep, label: str) -> str:
    name = str(own.get("baseline", sweep.baseline))
    return _join(name, label) if name in sweep.arms else name


def _filled(settings: Settings, fill: Mapping[str, str], arm: str) -> Settings:
    def value_of(value: Value, name: str) -> Value:
        if isinstance(value, list):
            return [value_of(part, name) for part in value]
        match = _PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            return value
        if match[1] not in fill:
            raise ConfigError(f"{name} of the arm {arm!r} is open; give --fill {match[1]}=VALUE")
        return fill[match[1]]

    return {name: value_of(value, name) for name, value in settings.items()}


def _short(name: str, grid: Mapping[str, object]) -> str:
    """Return the last part of a setting's name, or all of it where two share that part."""
    last = name.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in grid) == 1 else name


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(_words, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _join(name: str, label: str) -> str:
    return " ".join(part for part in (name, label) if part)


def _as_file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=]+", "-", name).strip("-.")


def _require_different(file_names: Sequence[str], names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for file_name, name in zip(file_names, names, strict=True):
        if not file_name:
            raise ConfigError(f"the arm {name!r} needs a letter or a digit in its name")
        if file_name in seen:
            raise ConfigError(
                f"the arms {seen[file_name]!r} and {name!r} would share the run folder "
                f"{file_name}; give them names that differ in letters or digits"
            )
        seen[file_name] = name
