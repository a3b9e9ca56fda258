"""Commands and options as the command line shows them: their order, their headings, their errors.

Loads click and nothing heavier: `distil --help` needs no settings.
"""

import errno
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, NoReturn, TypeVar

import click

from pipeline.errors import DistilError
from store_schemas.errors import StoreError

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
Decorator = Callable[[FunctionT], FunctionT]

_MACHINE_SAYS_NO = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
"""Disk full, quota, read-only, no permission: nothing that a traceback would explain."""


class HeadedOption(click.Option):
    """An option that stands under a heading of its own in --help."""

    def __init__(self, *names: Any, heading: str = "Options", **settings: Any) -> None:
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


def command(name: str, *, short_help: str | None = None) -> Callable[[FunctionT], click.Command]:
    """Make a function a command whose options stand under their headings."""
    return click.command(name, cls=HeadedCommand, short_help=short_help)


class CommandMap(click.Group):
    """Lists commands in the order of the work, and prints errors written for people on one line."""

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
            way_on = "; continue with the same command and --resume" if can_resume else ""
            fail(f"stopped{way_on}")


class LazyCommandMap(CommandMap):
    """A command map that imports a command when it is first needed.

    listed: name -> (``module:function``, short help).
    """

    def __init__(self, name: str, listed: Mapping[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(name, **settings)
        places = {command: place for command, (place, _) in listed.items()}
        self.commands = _LazyCommands(places)  # type: ignore[assignment]  # none is added later
        self._short_helps = [(name, short_help) for name, (_, short_help) in listed.items()]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(self._short_helps)


class _LazyCommands(Mapping[str, click.Command]):
    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> click.Command:
        module, _, function = self._places[name].partition(":")
        return getattr(import_module(module), function)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def fail(message: str) -> NoReturn:
    """Print what is wrong on one line of stderr and exit with 1."""
    click.echo(f"distil: {' '.join(message.split())}", err=True)
    sys.exit(1)
