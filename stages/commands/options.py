"""What the commands share at the command line: options, their headings in --help, one-line errors.

Loads click and nothing heavy, so that `distil --help` stays fast.
"""

import errno
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from pipeline.errors import DistilError
from store_schemas.errors import StoreError

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
Decorator = Callable[[FunctionT], FunctionT]

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
ANY = click.Path(path_type=Path)

_MACHINE_SAYS_NO = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
"""Disk full, quota, read-only, no permission: nothing that a traceback would explain."""


class HeadedOption(click.Option):
    """An option that stands under a heading of its own in --help."""

    def __init__(self, *names: Any, heading: str, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.heading = heading


class HeadedCommand(click.Command):
    """A command whose options stand under their headings, in order of appearance."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                heading = getattr(parameter, "heading", "Options")
                records.setdefault(heading, []).append(record)
        for heading, lines in records.items():
            with formatter.section(heading):
                formatter.write_dl(lines)


def command(name: str, *, short_help: str) -> Callable[[FunctionT], click.Command]:
    """Make a function a command whose options stand under their headings."""
    return click.command(name, cls=HeadedCommand, short_help=short_help)


class CommandMap(click.Group):
    """Lists commands in the order of the work, and turns errors written for people into a line."""

    command_class = HeadedCommand

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (DistilError, StoreError) as error:
            fail(str(error))
        except OSError as error:
            if error.errno not in _MACHINE_SAYS_NO:
                raise
            fail(f"{error.filename or 'writing failed'}: {error.strerror}")
        except KeyboardInterrupt:
            command = self.commands.get(ctx.invoked_subcommand or "")
            can_resume = command and any(option.name == "resume" for option in command.params)
            way_on = "; go on with the same command and --resume" if can_resume else ""
            fail(f"stopped{way_on}")


def fail(message: str) -> NoReturn:
    """Say what is wrong on one line of stderr and exit with 1."""
    click.echo(f"distil: {' '.join(message.split())}", err=True)
    sys.exit(1)


def stack(*options: Decorator[Any]) -> Decorator[Any]:
    """Join options that several commands share into one decorator."""

    def decorate(command: FunctionT) -> FunctionT:
        return functools.reduce(lambda inner, option: option(inner), reversed(options), command)

    return decorate


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


_images = click.option(
    "--images", type=FOLDER, help="Folder that its file names are relative to.",
)  # fmt: skip
people_options = stack(
    click.option("--annotations", type=FILE, help="COCO keypoint JSON."),
    _images,
)
truth_options = stack(
    click.option("--annotations", type=FILE, help="The truth, as COCO keypoint JSON."),
    _images,
)
area_fraction_option = click.option(
    "--area-fraction", type=float, metavar="X",
    help="Area of a person without one, as a part of the box.",
)  # fmt: skip
view_options = stack(
    click.option("--views", type=int, metavar="N",
                 help="Augmented views of each person, beside the plain crop.  [default: 8]"),
    click.option("--seed", type=int, metavar="N", help="Draws the views.  [default: 0]"),
)  # fmt: skip
profile_option = click.option(
    "--profile", type=click.Choice(["default", "small", "fast", "lossless-float16"]),
    help="How heatmaps are stored.  [default: default]",
)  # fmt: skip

teacher_path_option = click.option(
    "--teacher", type=ANY, help="A .onnx file, or a run folder of train-teacher.",
)  # fmt: skip
_of_teacher = functools.partial(click.option, cls=HeadedOption, heading="How the teacher is asked")
teacher_options = stack(
    _of_teacher("--input-size", callback=_size, metavar="HxW",
                help="Of the crops; only for a model that leaves it open."),
    _of_teacher("--output-name", metavar="NAME",
                help="Which of several outputs holds the heatmaps."),
    _of_teacher("--mean", callback=_triple, metavar="R,G,B", help="[default: ImageNet's]"),
    _of_teacher("--std", callback=_triple, metavar="R,G,B", help="[default: ImageNet's]"),
    _of_teacher("--pixel-scale", type=float, metavar="X",
                help="Pixels are multiplied by it before the mean is taken off.  "
                "[default: 1/255]"),
    _of_teacher("--channel-order", type=click.Choice(["rgb", "bgr"]), help="[default: rgb]"),
    _of_teacher("--heatmap-activation", type=click.Choice(["none", "sigmoid"]),
                help="sigmoid for a model that gives logits.  [default: none]"),
    _of_teacher("--heatmap-gain", type=float, metavar="X",
                help="Heat is multiplied by it, so that peaks are near 1.  [default: 1]"),
    _of_teacher("--heatmap-frame", type=click.Choice(["msra", "half-pixel", "udp"]),
                help="Where heatmaps put a crop point.  [default: the network's own; msra for "
                "ONNX]"),
    _of_teacher("--flip-shift", type=int, metavar="CELLS",
                help="That mirrored-back maps move.  [default: 1 for msra, else 0]"),
    _of_teacher("--decoding", type=click.Choice(["dark", "quarter", "argmax"]),
                help="How a keypoint is read from a heatmap.  [default: dark]"),
    _of_teacher("--teacher-threads", type=int, metavar="N",
                help="Threads of one forward pass.  [default: 1 where stores are written, a batch "
                "for every core; else one for every core]"),
)  # fmt: skip
_TEACHER_FIELDS = {
    "input_size": "input_size_hw",
    "pixel_scale": "scale",
    "teacher_threads": "num_threads",
    **{
        name: name
        for name in (
            *("output_name", "mean", "std", "channel_order", "heatmap_activation"),
            *("heatmap_gain", "heatmap_frame", "flip_shift", "decoding"),
        )
    },
}

_of_training = functools.partial(click.option, cls=HeadedOption, heading="Training")
training_options = stack(
    _of_training("--epochs", type=int, metavar="N", help="[default: the preset's]"),
    _of_training("--batch-size", type=int, metavar="N", help="[default: the preset's]"),
    _of_training("--learning-rate", type=float, metavar="X", help="[default: the preset's]"),
    _of_training("--seed", type=int, metavar="N",
                 help="Order, initialisation and fresh views.  [default: 0]"),
    _of_training("--workers", type=int, metavar="N",
                 help="Processes that load images.  [default: 2, or the preset's]"),
    _of_training("--threads", type=int, metavar="N",
                 help="Of the training itself.  [default: torch's choice]"),
    _of_training("--resume", is_flag=True, help="Go on after the last finished epoch, exactly."),
)  # fmt: skip

_of_store = functools.partial(click.option, cls=HeadedOption, heading="What else is stored")
optional_array_options = stack(
    _of_store("--crops", is_flag=True, default=None,
              help="The crops too, as JPEG: a student then needs no images."),
    _of_store("--crop-quality", type=int, metavar="Q",
              help="Of that JPEG, 1 to 95.  [default: 90]"),
    _of_store("--tokens", type=click.Choice(["keypoint", "visual", "both"]),
              help="The tokens of a teacher of train-teacher."),
)  # fmt: skip

_of_trust = functools.partial(click.option, cls=HeadedOption, heading="Trust in store and images")
trust_options = stack(
    _of_trust("--on-corrupt", type=click.Choice(["raise", "skip"]),
              help="Heatmaps of a view that are missing or damaged: stop, or show another view of "
              "the person and count it; above 0.1 % of the views it stops.  [default: raise]"),
    _of_trust("--paranoid", is_flag=True, default=None,
              help="Digest an image at every decode, not only when it is new or has changed."),
)  # fmt: skip


def _names(_: click.Context, __: click.Parameter, text: str | None) -> list[str] | None:
    return None if text is None else text.split(",")


teacher_name_option = click.option(
    "--teacher-name", metavar="NAME", help="Of a store with several teachers: which one.",
)  # fmt: skip
teacher_names_option = click.option(
    "--teacher-name", "teacher_names", callback=_names, metavar="NAME[,NAME...]",
    help="Of a store with several teachers: which one, or several whose heat is averaged.",
)  # fmt: skip
cache_option = click.option(
    "--cache", "store_cache", type=FOLDER,
    help="Copy the store's shards here when they are first read; for stores in object stores.",
)  # fmt: skip

_of_settings = functools.partial(click.option, cls=HeadedOption, heading="All other settings")
config_options = stack(
    _of_settings("--config", "config_file", type=FILE, help="A TOML file with settings."),
    _of_settings("--set", "overrides", multiple=True, metavar="NAME=VALUE",
                 help="One setting, over all files; repeatable. An unknown NAME is answered with "
                 "the known ones."),
)  # fmt: skip


def teacher_fields(options: dict[str, Any]) -> dict[str, Any]:
    """Take the teacher's options out of a command's, under the names of their settings."""
    return {
        f"teacher_settings.{field}": options.pop(option)
        for option, field in _TEACHER_FIELDS.items()
    }


def training_fields(options: dict[str, Any]) -> dict[str, Any]:
    """Take the training's options out of a command's, under the names of their settings."""
    names = {
        "batch_size": "optimisation.batch_size",
        "learning_rate": "optimisation.learning_rate",
        "workers": "num_loader_workers",
        "threads": "num_threads",
    }
    return {field: options.pop(option) for option, field in names.items()}


def trust_fields(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options of trust out of a command's, under the names of their settings."""
    return {f"data.{name}": options.pop(name) for name in ("on_corrupt", "paranoid")}
