"""The arrows cli -> stages -> pipeline -> store_schemas, read from the source."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("cli", "stages", "pipeline", "store_schemas")
"""Each may import itself and what stands to its right."""
COMMANDS = "stages/commands"
"""A part of the command line, as cli.py; their options are shared and know no stage."""
STORE_SCHEMAS_NEEDS = {"numpy", "zarr", "numcodecs", "zstandard", "google_crc32c"}
ROOMS = (
    ("errors", "wording"),
    ("config", "progress"),
    ("storage", "drawn"),
    ("settings",),
    ("coco", "machine"),
    ("frames", "media"),
    ("models",),
    ("runs",),
    ("teachers", "teacher_store", "export"),
    ("caching", "training", "prediction", "detectors"),
    ("repair", "evaluation", "pictures"),
    ("benchmarks", "ablation", "report"),
)
"""Folders and files of `pipeline`: each may import itself and what stands in the lines above it."""
LOSS_FILES = (
    *("losses", "loss_parts", "regression_losses", "residual_flow", "heatmap_losses"),
    *("covariance_losses", "moment_losses", "score_losses", "token_losses"),
)
SCIENCE = ("pipeline/models", *(f"pipeline/training/{name}.py" for name in LOSS_FILES))
"""Networks and losses see tensors, never people, images, stores or files."""
SCIENCE_NEEDS = (
    *("pipeline.models", "pipeline.config", "pipeline.errors", "pipeline.settings"),
    *("pipeline.training.batch", "pipeline.training.settings"),
    *(f"pipeline.training.{name}" for name in LOSS_FILES),
)


def source_files() -> list[Path]:
    folders = [ROOT / layer for layer in LAYERS[1:]]
    return [ROOT / "cli.py", *(path for folder in folders for path in folder.rglob("*.py"))]


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Yield dotted names; of `from a import b` both `a` and `a.b`, as b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "." * node.level
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def is_stage(path: Path) -> bool:
    """A stage is a module of `stages` that defines the function it is named after."""
    if path.parent.name != "stages" or not path.is_file():
        return False
    body = ast.parse(path.read_text()).body
    return any(isinstance(node, ast.FunctionDef) and node.name == path.stem for node in body)


def stages() -> tuple[str, ...]:
    return tuple(path.stem for path in sorted((ROOT / "stages").glob("*.py")) if is_stage(path))


def room_of(module: str) -> str | None:
    """Return the folder or file of `pipeline` that holds a module."""
    parts = module.split(".")
    return parts[1] if parts[0] == "pipeline" and len(parts) > 1 else None


def is_below(name: str, module: str) -> bool:
    """Say whether a file of `pipeline` may import a module of it: from its own room, or below."""
    own = room_of(name.removesuffix(".py").replace("/", "."))
    other = room_of(module)
    if other is None or own == other or own == "__init__":
        return True
    level = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
    return own in level and other in level and level[other] < level[own]


def is_science(module: str) -> bool:
    return module == "pipeline" or is_within(module, SCIENCE_NEEDS)


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Return every group of modules that import each other, directly or through others."""
    reached = {start: reachable(start, imports) for start in imports}
    groups = {tuple(sorted(b for b in reached[a] if a in reached.get(b, ()))) for a in imports}
    return [list(group) for group in sorted(groups) if group]


def reachable(start: str, imports: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = imports.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_commands(name: str) -> bool:
    return name.startswith(f"{COMMANDS}/") and name != f"{COMMANDS}/options.py"


def violations(name: str, source: str) -> list[str]:
    """List what a file imports or calls against the rules.

    name: its path from the project's root, with slashes.
    """
    tree = ast.parse(source)
    layer = "cli" if is_commands(name) else name.removesuffix(".py").split("/")[0]
    upper = ("cli",) if is_commands(name) else LAYERS[: LAYERS.index(layer)]
    other_stages = tuple(
        f"stages.{stage}" for stage in stages() if name != f"stages/{stage}.py" and layer != "cli"
    )
    found = []
    for module in imported_modules(tree):
        top = module.split(".")[0]
        if top in upper:
            found.append(f"{name} imports {module}, a layer above it")
        if is_within(module, other_stages):
            found.append(f"{name} imports {module}: stages meet only on disk")
        if layer == "stages" and "commands" not in name and is_within(module, ("stages.commands",)):
            found.append(f"{name} imports {module}: a stage knows no command")
        if layer == "pipeline" and top in {"click", "rich"}:
            found.append(f"{name} imports {module}: only cli and stages talk to the terminal")
        if name.startswith("pipeline/") and not is_below(name, module):
            found.append(f"{name} imports {module}, which is not below it in ROOMS")
        if name.startswith(SCIENCE) and top == layer and not is_science(module):
            found.append(f"{name} imports {module}: networks and losses know nothing of data")
        if layer == "store_schemas" and not (
            top in STORE_SCHEMAS_NEEDS | sys.stdlib_module_names or top == layer
        ):
            found.append(f"{name} imports {module}: the contract needs no more than numpy and zarr")
    if layer in {"pipeline", "store_schemas"}:
        found += [
            f"{name}:{node.lineno} prints"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
        ]
    return found


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_follows_the_arrows(path: Path) -> None:
    assert violations(path.relative_to(ROOT).as_posix(), path.read_text()) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports inside functions count: a circle that is broken by them is still one."""
    modules = {module_of(path): path for path in source_files()}
    imports = {
        module: {
            other for other in imported_modules(ast.parse(path.read_text())) if other in modules
        }
        - {module}
        for module, path in modules.items()
    }
    packages = {module for module, path in modules.items() if path.name == "__init__.py"}
    for module in imports:  # a package lists its modules and imports some of them
        imports[module] -= {package for package in packages if module.startswith(f"{package}.")}
    assert circles(imports) == []


def test_a_seeded_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_every_folder_and_file_of_pipeline_has_its_place_in_the_order() -> None:
    found = {path.stem for path in (ROOT / "pipeline").iterdir() if path.stem[0] not in "_."}
    assert {room for rooms in ROOMS for room in rooms} == found


@pytest.mark.parametrize(
    "package", sorted((ROOT / "pipeline").glob("*/__init__.py")), ids=lambda path: path.parent.name
)
def test_a_packages_docstring_lists_all_its_modules_a_line_each(package: Path) -> None:
    docstring = ast.get_docstring(ast.parse(package.read_text())) or ""
    listed = re.findall(r"^(\w+)(?:\.py +| {2,})\S", docstring, re.MULTILINE)
    found = {path.stem for path in package.parent.glob("*.py")} - {package.stem}
    assert sorted(listed) == sorted(found)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("pipeline/x.py", "from stages.evaluate import evaluate"),
        ("pipeline/x.py", "def f() -> None:\n    import cli"),
        ("stages/show.py", "from stages.evaluate import evaluate"),
        ("stages/show.py", "from stages import evaluate"),
        ("stages/x.py", "from stages.demo import demo"),
        ("stages/commands/store.py", "import cli"),
        ("stages/commands/options.py", "import cli"),
        ("stages/commands/options.py", "from stages.show import show"),
        ("stages/show.py", "from stages.commands.options import FILE"),
        ("stages/x.py", "from stages import commands"),
        ("stages/show.py", "import cli"),
        ("pipeline/x.py", "import click"),
        ("pipeline/coco/x.py", "from pipeline.evaluation.report import compare_figures"),
        ("pipeline/teachers/x.py", "from pipeline.teacher_store.reader import TeacherStore"),
        ("pipeline/caching/x.py", "from pipeline.benchmarks.fidelity import StudiedPeople"),
        ("pipeline/runs/x.py", "def f() -> None:\n    from pipeline import teachers"),
        ("pipeline/models/x.py", "from pipeline.frames.geometry import SizeHW"),
        ("pipeline/coco/x.py", "print('x')"),
        ("pipeline/models/x.py", "from pipeline.coco.people import People"),
        ("pipeline/models/x.py", "from pipeline import coco"),
        ("pipeline/training/losses.py", "from pipeline.training.data import TrainingBatch"),
        ("pipeline/training/losses.py", "import pipeline.teacher_store.reader"),
        ("store_schemas/x.py", "import torch"),
        ("store_schemas/x.py", "from pipeline.errors import DistilError"),
    ],
)
def test_a_seeded_violation_is_caught(name: str, source: str) -> None:
    assert violations(name, source)


def test_the_command_line_calls_stages_and_every_stage() -> None:
    command_line = [ROOT / "cli.py", *(ROOT / COMMANDS).glob("*.py")]
    trees = [ast.parse(path.read_text()) for path in command_line]
    imported = {module for tree in trees for module in imported_modules(tree)}
    called = {name for name in stages() if f"stages.{name}.{name}" in imported}
    assert called >= {"cache_teacher", "train_student", "evaluate", "show", "demo"}
    assert called == set(stages())


def run_isolated(code: str) -> str:
    """Run code in a Python of this environment that sees neither the working folder nor PYTHON*."""
    command = [sys.executable, "-I", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    return result.stdout.strip()


def test_the_generic_import_names_are_this_projects() -> None:
    """No other distribution shadows `cli`, `pipeline`, `stages` or `store_schemas`."""
    code = (
        "import cli, pipeline, stages, store_schemas\n"
        "for m in (cli, pipeline, stages, store_schemas): print(m.__file__)"
    )
    files = [Path(line) for line in run_isolated(code).splitlines()]
    assert [ROOT in file.parents for file in files] == [True] * 4


def test_the_contract_on_disk_is_importable_without_torch() -> None:
    code = (
        "import pkgutil, importlib, sys, store_schemas\n"
        "for m in pkgutil.iter_modules(store_schemas.__path__):\n"
        "    importlib.import_module(f'store_schemas.{m.name}')\n"
        "print(sorted({'torch', 'cv2', 'pipeline', 'pydantic'} & set(sys.modules)))"
    )
    assert run_isolated(code) == "[]"
