"""Every command of docs/coco.md exists as it is written there."""

import re
import shlex
from pathlib import Path

import click
import pytest

from cli import main
from stages import preset_file

PAGE = (Path(__file__).resolve().parents[1] / "docs/coco.md").read_text()


def commands() -> list[str]:
    """Return the commands of the blocks without a language, on one line each."""
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("distil ")]


def test_the_page_goes_from_a_teacher_to_results() -> None:
    order = [line.split()[1] for line in commands()]
    assert list(dict.fromkeys(order)) == [
        *("train-teacher", "cache-teacher", "train-student", "evaluate", "predict"),
    ]


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_page_parses(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = main.commands[name]
    assert isinstance(command, click.Command)
    context = command.make_context(name, arguments)
    preset = context.params.get("preset")
    if preset is not None:
        assert preset_file(preset, "teacher" if name == "train-teacher" else "student").is_file()
