"""Everything that README.md and docs/commands.md tell a reader to type exists."""

import re
import shlex
from pathlib import Path

import click
import pytest

from cli import main
from pipeline.config import StageConfig

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))
BOTH = README + (ROOT / "docs/commands.md").read_text()


def code_lines() -> list[str]:
    """Return the lines of all code blocks without a language."""
    blocks = re.findall(r"^```\n(.*?)^```$", BOTH, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def commands() -> list[str]:
    return [line for line in code_lines() if line.startswith("distil ")]


def test_every_command_is_shown() -> None:
    shown = {line.split()[1] for line in commands()}
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", BOTH, flags=re.MULTILINE))
    assert shown | {"draw-people"} == set(main.commands)
    assert set(main.commands) <= listed


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_a_command_of_the_readme_parses(line: str) -> None:
    _, name, *arguments = shlex.split(line, comments=True)
    context = main.commands[name].make_context(name, arguments)
    for setting in context.params.get("overrides", ()):
        assert is_setting_of_training(setting.split("=")[0])


def is_setting_of_training(dotted_name: str) -> bool:
    from stages.settings.training import TrainStudentConfig

    owner: object = TrainStudentConfig
    for part in dotted_name.split("."):
        if not (isinstance(owner, type) and part in getattr(owner, "model_fields", {})):
            return False
        owner = owner.model_fields[part].annotation  # type: ignore[attr-defined]
    return True


def test_an_option_named_in_the_text_exists() -> None:
    groups = [g.commands for g in main.commands.values() if isinstance(g, click.Group)]
    found = [c for commands in (main.commands, *groups) for c in commands.values()]
    known = {name for command in found for p in command.params for name in p.opts}
    text = re.sub(r"\buv (sync|pip|venv) [^`]*", "", BOTH)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text)) - {"--help"}
    assert named <= known


def test_a_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets


def test_a_file_of_the_readme_exists() -> None:
    named = set(re.findall(r"`([\w/]+\.(?:py|md))`", BOTH))
    tree = re.search(r"^cli\.py .*?^```", README, flags=re.MULTILINE | re.DOTALL)
    assert tree is not None
    folder = ""
    for line in tree.group().splitlines()[:-1]:
        names = re.split(r"  +", line.strip())[0].split(", ")
        folder = folder if line.startswith(" ") else ""
        named |= {folder + name for name in names}
        if not line.startswith(" ") and names[0].endswith("/"):
            folder = names[0]
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_settings_of_another_skeleton_are_settings() -> None:
    import tomllib

    from pipeline.settings import PeopleSettings

    class Holder(StageConfig):
        people: PeopleSettings = PeopleSettings()

    (block,) = re.findall(r"^```toml\n(.*?)^```$", BOTH, flags=re.MULTILINE | re.DOTALL)
    assert Holder.model_validate(tomllib.loads(block)).people.skeleton.sigmas


def test_every_preset_is_described() -> None:
    presets = {path.stem for path in (ROOT / "stages/presets").glob("*.toml")}
    rows = re.findall(r"^\| (`[a-z0-9-]+`(?:, `[a-z0-9-]+`)*) \|", BOTH, flags=re.MULTILINE)
    assert presets <= {name for row in rows for name in re.findall("[a-z0-9-]+", row)}


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in DOCS)])
def test_a_link_of_a_page_leads_to_a_file(page: str) -> None:
    text = (ROOT / page).read_text()
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)}
    inside = {link for link in links if link and not link.startswith("http")}
    assert [x for x in sorted(inside) if not ((ROOT / page).parent / x).exists()] == []


def test_nothing_is_told_to_be_installed_from_where_it_is_not_published() -> None:
    pages = [ROOT / "README.md", *DOCS, *(ROOT / "pipeline").rglob("*.py")]
    pages += [*(ROOT / "stages").rglob("*.py"), ROOT / "cli.py"]
    told = re.compile(r"pip install ['\"]?distil-pose|install distil-pose\[")
    assert [str(page) for page in pages if told.search(page.read_text())] == []
