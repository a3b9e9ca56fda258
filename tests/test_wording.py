"""Laws of wording that a machine can check: docstrings, help texts, messages and pages."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES = 400
"""A file is one subject; a longer one holds two."""
BARE_FIRST_WORDS = ("Of", "With", "Without", "By", "Under", "Beside", "That", "Whose")
"""A docstring begins with its noun or its verb, not with a word that leaves the noun out."""
BANNED = {
    r"mend(s|ed|ing)?": "repair",
    r"redo(es|ing|ne)?": "repair, or `write again`",
    r"look(s|ed|ing)? at": "read, predict or compare",
    r"(is|are|was|were) asked": "call, run or read",
    r"what (it|he|she|they) (saw|said|says)": "the name of what is meant",
}
"""Words that are not the project's, as patterns, and the words to use in their place."""


def source_files() -> list[Path]:
    folders = [ROOT / layer for layer in ("stages", "pipeline", "store_schemas")]
    return [ROOT / "cli.py", *(path for folder in folders for path in sorted(folder.rglob("*.py")))]


def pages() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and text of every string that stands alone: of fields and constants too."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and text of every string: docstrings, help texts, messages and names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def violations(name: str, source: str) -> list[str]:
    """List where a file breaks the laws of wording.

    name: its path from the project's root, with slashes.
    """
    if name.endswith(".md"):
        prose = re.sub(r"^```.*?^```|`[^`]*`", "", source, flags=re.MULTILINE | re.DOTALL)
        return banned_words(name, prose)
    tree = ast.parse(source)
    num_lines = len(source.splitlines())
    found = []
    if num_lines > MOST_LINES:
        found.append(f"{name} has {num_lines} lines, at most {MOST_LINES} are one subject")
    for line, text in docstrings(tree):
        first = re.match(r"\w+", text)
        if first and first[0] in BARE_FIRST_WORDS:
            found.append(f"{name}:{line} begins with {first[0]!r}: name the noun first")
    for line, text in texts(tree):
        found += banned_words(f"{name}:{line}", text)
    return found


def banned_words(where: str, text: str) -> list[str]:
    """List the banned words of a text; names such as --accept-mended-images are not words."""
    words, found = " ".join(text.split()), []
    for pattern, better in BANNED.items():
        if match := re.search(rf"(?<![\w-]){pattern}(?![\w-])", words, re.IGNORECASE):
            found.append(f"{where} says {match[0]!r}: use {better}")
    return found


@pytest.mark.parametrize(
    "path", source_files() + pages(), ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_file_keeps_the_laws_of_wording(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    assert violations(name, path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        '"""Of the target Gaussians, heatmap cells."""',
        'SIGMA = 2.0\n"""Of the target Gaussians, heatmap cells."""',
        'class A:\n    def f(self) -> None:\n        """With tokens."""',
        'raise ValueError(f"{name} is mended by --resume")',
        'HELP = "Whether the teacher\\n  looked at the crop."',
        'def f() -> None:\n    """Return whether the teacher is asked again."""',
        "x = 1\n" * (MOST_LINES + 1),
    ],
)
def test_a_seeded_violation_is_caught(source: str) -> None:
    assert violations("pipeline/x.py", source)


@pytest.mark.parametrize(
    "source",
    [
        '"""Standard deviation of the target Gaussians, heatmap cells."""',
        'raise ValueError("take the image with --accept-mended-images")',
        "x = 1\n" * MOST_LINES,
    ],
)
def test_plain_words_are_let_through(source: str) -> None:
    assert violations("pipeline/x.py", source) == []
