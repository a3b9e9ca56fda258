"""Options of the commands, made from the models of the settings.

An option's type, help and default are those of its setting, so that none of them is written twice.
The parameter of an option is named like its setting (``optimisation.batch_size``): the options of a
command are the fields of its configuration.
"""

import errno
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.config import PathRole, StageConfig, load_config, read_begun
from pipeline.errors import ConfigError
from pipeline.settings import is_on_hub
from pipeline.storage.folder import open_folder
from pipeline.storage.object_client import is_object_location
from stages.commands.command_map import Decorator, HeadedOption

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
StageT = TypeVar("StageT", bound=StageConfig)
Model = type[BaseModel]

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
_PATH = click.Path(path_type=Path)
_PATHS = {
    "file": FILE, "folder": FOLDER, "path": _PATH, "store": click.STRING, "teacher": _PATH
}  # fmt: skip
_METAVARS = {"store": "PATH|URL", int: "N", float: "X", str: "NAME"}


class SettingOption(HeadedOption):
    """The option of a setting; its parameter has the dotted name of the setting."""

    def __init__(self, *names: Any, model: Model, setting: str, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.name, self.model = setting, model


def setting_option(model: Model, setting: str, *names: str, **given: Any) -> Decorator[Any]:
    """Make the option of a setting.

    setting: its dotted name in the model.
    given: of ``SettingOption``, in place of what the model gives; ``default_text``: the default
        that the help names, where a preset has another one than the model.
    """
    field, default = _field_at(model, setting)
    default_text = given.pop("default_text", _in_words(default))
    shown = "" if default_text is None else f"  [default: {default_text}]"
    help_text = " ".join((field.description or "").replace("``", "").split()) + shown
    settings = {"help": help_text.strip(), **_type_of(field), **given}
    return click.option(*names, cls=SettingOption, model=model, setting=setting, **settings)


def switch_off(model: Model, setting: str, name: str, help: str) -> Decorator[Any]:
    """Make a flag that sets a setting to false."""
    _field_at(model, setting)
    return click.option(
        name,
        cls=SettingOption,
        model=model,
        setting=setting,
        help=help,
        is_flag=True,
        callback=lambda _, __, is_given: False if is_given else None,
    )


def stack(*options: Decorator[Any]) -> Decorator[Any]:
    """Join several options into one decorator."""

    def decorate(command: FunctionT) -> FunctionT:
        return functools.reduce(lambda inner, option: option(inner), reversed(options), command)

    return decorate


def configured(
    model: type[StageT],
    options: dict[str, Any],
    *,
    preset: Path | None = None,
    resumed: Path | None = None,
) -> StageT:
    """Build the configuration of a stage, and refuse inputs that do not exist.

    options: of the command, by setting; ``--config`` and ``--set`` among them.
    resumed: config.json of the run that is resumed, which has every setting that is not given.

    Raises:
        ConfigError: a source of settings is at fault, or inputs do not exist.
        RunFolderError: there is no run to resume.
    """
    sources = {name: options.pop(name) for name in ("config_file", "overrides") if name in options}
    begun = None if resumed is None else read_begun(resumed)
    if begun is not None and options.get("optimisation.batch_size") == "auto":
        del options["optimisation.batch_size"]  # what was found then is in the run's settings
    config = load_config(
        model, begun=begun, preset=preset, **sources, fields=options, option_names=option_names()
    )
    require_inputs(config)
    return config


def option_names() -> Mapping[str, str]:
    """Return the option of each setting of the command that runs, for messages."""
    named = {}
    for parameter in click.get_current_context().command.params:
        if isinstance(parameter, click.Argument):
            named[parameter.name or ""] = parameter.human_readable_name
        elif isinstance(parameter, SettingOption):
            named[parameter.name] = parameter.opts[0]
    return named


def require_inputs(config: StageConfig) -> None:
    """Refuse inputs that do not exist, before a stage loads what would read them.

    Raises:
        ConfigError: files or folders do not exist.
        IncompleteError: there is no store.
    """
    missing = []
    for role, location in _inputs(config):
        if role.kind == "store":
            _require_store(location)
        elif role.kind == "teacher" and is_on_hub(Path(location)):
            pass  # whether it is there, the hub says when it is opened
        elif not Path(location).exists():
            missing.append(f"{location}: cannot be read: {os.strerror(errno.ENOENT)}")
    if missing:
        raise ConfigError(f"{'; '.join(missing)}; check the path")


def _require_store(location: str) -> None:
    if is_object_location(location) or (Path(location) / "zarr.json").exists():
        return
    from store_schemas.root_metadata import read_entries  # zarr takes a moment to load

    read_entries(open_folder(location))


def _inputs(config: BaseModel) -> Iterator[tuple[PathRole, str]]:
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from _inputs(value)
        role = _role_of(field)
        if role is not None and role.is_input and value is not None:
            is_store = role.kind == "store"
            yield from (
                (role, str(part)) for part in _leaves(value) if is_store or isinstance(part, Path)
            )


def _leaves(value: object) -> Iterator[object]:
    """Yield a value, or all values of nested tuples: arms are pairs of a name and a path."""
    if not isinstance(value, tuple):
        yield value
        return
    for part in value:
        yield from _leaves(part)


def _field_at(model: Model, setting: str) -> tuple[FieldInfo, object]:
    """Return the field of a setting, and its default in this model."""
    name, _, rest = setting.partition(".")
    field = model.model_fields[name]
    default: object = field.default
    while rest:
        name, _, rest = rest.partition(".")
        models = (part for part in _parts(field.annotation) if isinstance(part, type))
        owner = next(m for m in models if issubclass(m, BaseModel) and name in m.model_fields)
        field = owner.model_fields[name]
        default = getattr(default, name) if isinstance(default, owner) else field.default
    return field, default


def _type_of(field: FieldInfo) -> dict[str, Any]:
    """Return what click needs to know of the type of a field."""
    role = _role_of(field)
    if role is not None:
        return {"type": _PATHS[role.kind], "metavar": _METAVARS.get(role.kind)}
    kinds = [kind for kind in _parts(field.annotation) if kind is not NoneType]
    if bool in kinds:
        return {"is_flag": True, "default": None}
    for kind in kinds:
        if get_origin(kind) is Literal:
            return {"type": click.Choice(get_args(kind))}
    kind = next(kind for kind in kinds if kind in (int, float, str))
    return {"type": kind, "metavar": _METAVARS[kind]}


def _role_of(field: FieldInfo) -> PathRole | None:
    marks = [*field.metadata, *_parts(field.annotation)]
    return next((mark for mark in marks if isinstance(mark, PathRole)), None)


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield a type and all that it is made of, the marks of ``Annotated`` too."""
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _in_words(default: object) -> str | None:
    """Return a default as the command line would take it; None where there is nothing to name."""
    if isinstance(default, tuple):
        return ",".join(map(str, default)) or None
    if isinstance(default, bool) or not isinstance(default, int | float | str | Path):
        return None
    return f"{default:g}" if isinstance(default, float) else str(default)


def _size(_: click.Context, parameter: click.Parameter, text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise click.BadParameter(
            f"{text!r} is not HEIGHTxWIDTH, for example 256x192", param=parameter
        )
    return [int(part) for part in parts]


def _triple(_: click.Context, parameter: click.Parameter, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3:
        raise click.BadParameter(
            f"{text!r} is not three numbers, for example 0.5,0.5,0.5", param=parameter
        )
    return values


def _integers(_: click.Context, parameter: click.Parameter, text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise click.BadParameter(
            f"{text!r} is not a list of numbers, for example 0,2,1", param=parameter
        )
    return [int(part) for part in parts]


def _count(_: click.Context, __: click.Parameter, text: str | None) -> int | str | None:
    """Read a number, or a word in its place."""
    return int(text) if text is not None and text.isdecimal() else text


def names(_: click.Context, __: click.Parameter, text: str | None) -> list[str] | None:
    """Read names with commas between them; None: not given."""
    return None if text is None else text.split(",")


def named_paths(
    _: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[tuple[str, Path], ...] | None:
    """Read NAME=PATH as often as it is given; None: never."""
    pairs = []
    for text in texts:
        name, separator, path = text.partition("=")
        if not (name and separator and path):
            raise click.BadParameter(
                f"{text!r} is not NAME=RUN_FOLDER, for example distilled=runs/a", param=parameter
            )
        pairs.append((name, Path(path)))
    return tuple(pairs) or None


def options_of(model: Model, settings: Mapping[str, str], **given: Any) -> Decorator[Any]:
    """Make several options that need nothing but their settings: option -> setting."""
    return stack(
        *(setting_option(model, setting, name, **given) for name, setting in settings.items())
    )


def people_options(model: Model) -> Decorator[Any]:
    return options_of(model, {"--annotations": "annotations", "--images": "images"})


def teacher_options(model: Model) -> Decorator[Any]:
    """Make the options of ``TeacherSettings``, under a heading of their own."""

    def option(name: str, setting: str, **given: Any) -> Decorator[Any]:
        heading = "Input and output of the teacher"
        return setting_option(model, f"teacher_settings.{setting}", name, heading=heading, **given)

    return stack(
        option("--architecture", "architecture", metavar="NAME"),
        option("--input-size", "input_size_hw", type=str, callback=_size, metavar="HxW"),
        option("--output-name", "output_name"),
        option("--mean", "mean", type=str, callback=_triple, metavar="R,G,B"),
        option("--std", "std", type=str, callback=_triple, metavar="R,G,B"),
        option("--pixel-scale", "scale", default_text="1/255"),
        option("--channel-order", "channel_order"),
        option(
            "--keypoint-order", "keypoint_order", type=str, callback=_integers, metavar="N,N,..."
        ),
        option("--heatmap-activation", "heatmap_activation"),
        option("--heatmap-gain", "heatmap_gain"),
        option("--heatmap-frame", "heatmap_frame"),
        option("--flip-shift", "flip_shift", metavar="CELLS"),
        option("--decoding", "decoding"),
        option("--teacher-threads", "num_threads"),
    )


def device_option(model: Model, setting: str = "device", **given: Any) -> Decorator[Any]:
    """Make the option of the device that a command's networks run on."""
    return setting_option(model, setting, "--device", metavar="DEVICE", **given)


def training_options(model: Model, default_text: str | None = None) -> Decorator[Any]:
    """Make the options of every training, under a heading of their own.

    default_text: the default of those settings that presets set.
    """
    of_preset = {} if default_text is None else {"default_text": default_text}
    option = functools.partial(setting_option, model, heading="Training")
    return stack(
        option("epochs", "--epochs", **of_preset),
        option("optimisation.batch_size", "--batch-size", type=str, callback=_count,
               metavar="N|auto", **of_preset),
        option("optimisation.micro_batch", "--micro-batch"),
        option("optimisation.learning_rate", "--learning-rate", **of_preset),
        option("seed", "--seed"),
        option("num_loader_workers", "--workers"),
        option("num_threads", "--threads"),
        device_option(model, heading="Training"),
        option("precision", "--precision"),
        option("compiled", "--compile"),
        option("optimisation.average_decay", "--average-decay"),
        option("sync_batch_norm", "--sync-bn/--no-sync-bn", default_text="sync-bn"),
        option("checkpoint_minutes", "--checkpoint-minutes"),
        option("tensorboard", "--tensorboard"),
        option("wandb", "--wandb", metavar="PROJECT"),
        click.option(
            "--resume", cls=HeadedOption, heading="Training", is_flag=True,
            help="Continue exactly after the last checkpoint; settings that are not given are "
            "those that the run began with.",
        ),
    )  # fmt: skip


_of_settings = functools.partial(click.option, cls=HeadedOption, heading="All other settings")
config_options = stack(
    _of_settings("--config", "config_file", type=FILE, help="TOML file with settings."),
    _of_settings("--set", "overrides", multiple=True, metavar="NAME=VALUE",
                 help="Value of one setting, which wins over all files; repeatable. `distil "
                 "settings COMMAND` lists them."),
)  # fmt: skip
