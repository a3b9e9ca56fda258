"""`distil settings`: all settings of a command, with their values, default and meaning."""

import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import click

from stages import Role, preset_file
from stages.commands.command_map import command
from stages.commands.options import SettingOption


@command("settings")
@click.argument("command_name", nargs=-1, required=True, metavar="COMMAND")
@click.option("--preset", metavar="NAME",
              help="Name of shipped settings of train-student or train-teacher, whose values are "
              "listed in place of the defaults.")  # fmt: skip
def settings_command(command_name: tuple[str, ...], preset: str | None) -> None:
    """List all settings of a command: their names, values, defaults and meanings.

    Takes a COMMAND, such as train-student or store verify; writes no file, and prints each setting
    with the option that sets it, if there is one. Where the command takes --set
    NAME=VALUE and --config FILE, they set all of them.
    """
    options = [o for o in _find(command_name).params if isinstance(o, SettingOption)]
    if not options:
        raise click.BadParameter(
            f"{' '.join(command_name)} has no settings; --help lists its options",
            param_hint="COMMAND",
        )
    role: Role = "teacher" if command_name == ("train-teacher",) else "student"
    of_preset = _flat(tomllib.loads(preset_file(preset, role).read_text())) if preset else {}

    from stages.settings.listing import list_settings

    names = {option.name: option.opts[0] for option in options}
    shown = set()
    for model in dict.fromkeys(option.model for option in options):
        for line in list_settings(model):
            if (line.name, line.only_where) in shown:
                continue
            shown.add((line.name, line.only_where))
            default = of_preset.get(line.name, line.default)
            facts = [line.values]
            facts += [] if default is None else [f"default {default}"]
            facts += ["must be given"] if line.is_required else []
            facts += [line.only_where] if line.only_where else []
            click.secho(line.name, bold=True, nl=False)
            click.echo(f"  {names[line.name]}" if line.name in names else "")
            for text in ("; ".join(facts), line.meaning):
                click.echo(textwrap.fill(text, 92, initial_indent="    ", subsequent_indent="    "))


def _find(words: tuple[str, ...]) -> click.Command:
    """Return the command that words name, below the program's own."""
    context = click.get_current_context().find_root()
    found = context.command
    for word in words:
        inner = found.get_command(context, word) if isinstance(found, click.Group) else None
        if inner is None:
            raise click.BadParameter(f"there is no command {' '.join(words)}", param_hint="COMMAND")
        found = inner
    if isinstance(found, click.Group):
        inside = ", ".join(f"{' '.join(words)} {name}" for name in found.list_commands(context))
        raise click.BadParameter(f"name one command of the group: {inside}", param_hint="COMMAND")
    return found


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted names and values of nested settings."""
    return dict(_leaves(tree, prefix))


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
