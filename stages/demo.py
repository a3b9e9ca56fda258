"""All of distil on drawn people: cache a teacher, train a student with and without it, compare.

No data, no download, no GPU. The demo runs the real commands, each in a process of its own as a
user would, and prints them; only drawing, measuring and the picture happen here.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.drawn.people import write_drawn_people
from pipeline.errors import DistilError
from pipeline.evaluation.comparison import MEAN_POSE
from pipeline.pictures.predictions import draw_people
from pipeline.runs.run_folder import RunFolder

TEACHER = Path(__file__).parent / "demo_teacher.safetensors"
"""A tokenpose-xs trained on other drawn people by `make demo-teacher`."""
FIRST_SEED = 1_000
"""Far from the seed of the people that the teacher was trained on."""
DISTILLED, PLAIN = "distilled", "plain"
PROVES_NOTHING = (
    "The plain student's mean OKS is below twice the mean pose's: it has hardly learned anything, "
    "so this comparison PROVES NOTHING."
)
NEXT_COMMANDS = (
    "distil cache-teacher --annotations train.json --images DIR --teacher model.onnx "
    "--views 0 --flip-test --store teacher.zarr",
    "distil train-student --store teacher.zarr --images DIR --preset distilpose-xs "
    "--run-folder runs/a",
    "distil evaluate --run-folder runs/a --annotations val.json --images DIR",
)


@dataclass(frozen=True)
class DemoSize:
    """Numbers of images and epochs, and the seeds of the trainings."""

    num_train_images: int
    num_val_images: int
    epochs: int
    seeds: tuple[int, ...]


QUICK = DemoSize(num_train_images=600, num_val_images=300, epochs=30, seeds=(0,))
THOROUGH = DemoSize(num_train_images=1500, num_val_images=600, epochs=40, seeds=(0, 1, 2))


class DemoError(DistilError):
    """A command of the demo failed."""


def demo(
    output: Path, *, thorough: bool, seed: int, console: Console, device: str | None = None
) -> bool:
    """Run everything on drawn people and write data, store, runs, table and picture to a folder.

    device: that of all networks, for the commands; None: their own choice.

    Returns whether the plain students learned enough for the comparison to mean anything.

    Raises:
        DemoError: the folder holds something else, or a command failed.
    """
    started = time.monotonic()
    on_device = () if device is None else ("--device", device)
    size = THOROUGH if thorough else QUICK
    _require_own_folder(output)

    console.rule("1  draw people")
    drawn_by = seed + FIRST_SEED
    train = _draw(output / "train", size.num_train_images, drawn_by, 0, console)
    # The same seed draws other people at other indices.
    val = _draw(output / "val", size.num_val_images, drawn_by, size.num_train_images, console)

    console.rule("2  the teacher predicts every person once")
    store = output / "teacher.zarr"
    _run(
        console,
        *("cache-teacher", "--annotations", train / "annotations.json"),
        *("--images", train / "images", "--teacher", TEACHER, "--store", store),
        *("--views", 0, "--flip-test", *on_device),
    )
    _run(console, "show", store, "--output", output / "store.png")

    console.rule("3  train the student with and without the store's targets")
    arms = {
        (name, number): output / f"run-{label}-{number}"
        for number in size.seeds
        for name, label in ((DISTILLED, "distilled"), (PLAIN, "plain"))
    }
    commands = {
        run: [
            *_training_command(store, train, run, seed + number, size.epochs, name == PLAIN),
            *on_device,
        ]
        for (name, number), run in arms.items()
    }
    for number in size.seeds:  # both arms of a seed side by side, one thread each
        pair = [arms[DISTILLED, number], arms[PLAIN, number]]
        _run_side_by_side(console, {run: commands[run] for run in pair}, size.epochs)

    console.rule("4  compare on people nobody trained on")
    table = output / "table.json"
    _run(
        console,
        *("compare", "--annotations", val / "annotations.json", "--images", val / "images"),
        *("--mean-pose", train / "annotations.json", "--teacher", TEACHER),
        *(word for (name, _), run in arms.items() for word in ("--arm", f"{name}={run}")),
        *("--output", table, *on_device),
    )
    report = output / "report.html"
    _run(
        console,
        *("report", *arms.values(), "--store", store, "--output", report),
        *("--annotations", val / "annotations.json", "--images", val / "images"),
    )
    proves = _proves_something(table)
    if not proves:
        console.print(PROVES_NOTHING, style="bold red")
    networks = {name: RunFolder(arms[name, 0]).best_weights for name in (DISTILLED, PLAIN)}
    draw_people(output / "people.png", val / "annotations.json", val / "images", TEACHER, networks)
    console.print(
        f"\n{report}, a page for any browser, shows curves, figures, people and settings; "
        f"{output / 'people.png'} people, heatmaps and all keypoints; "
        f"{output / 'store.png'} what the store holds; {table} all figures.\n"
        f"Took {(time.monotonic() - started) / 60:.1f} minutes.\n"
    )
    console.print(
        "The same on your own people (COCO keypoint JSON) and teacher (any ONNX heatmap model):"
    )
    for command in NEXT_COMMANDS:
        console.print(f"  {command}", style="bold", highlight=False, soft_wrap=True)
    return proves


def _proves_something(table: Path) -> bool:
    """Return whether every plain student reached twice the mean OKS of the mean pose."""
    arms = json.loads(table.read_text())["arms"]
    oks = {
        name: [arm["mean_oks"] for arm in arms if arm["name"] == name]
        for name in (MEAN_POSE, PLAIN)
    }
    return bool(min(oks[PLAIN]) >= 2 * oks[MEAN_POSE][0])


def _draw(folder: Path, num_images: int, seed: int, first_index: int, console: Console) -> Path:
    write_drawn_people(folder, num_images, seed, first_index)
    console.print(f"drew {num_images} images into {folder}")
    return folder


def _training_command(
    store: Path, train: Path, run: Path, seed: int, epochs: int, plain: bool
) -> list[str]:
    parts = [
        *("train-student", "--store", store, "--images", train / "images", "--preset", "demo"),
        *("--init-weights", TEACHER, "--seed", seed, "--epochs", epochs, "--run-folder", run),
        *(["--no-distillation"] if plain else []),
    ]
    return [str(part) for part in parts]


def _run(console: Console, *arguments: object) -> None:
    """Print one command of distil and run it; its output appears below."""
    words = [str(argument) for argument in arguments]
    console.print(f"$ distil {' '.join(words)}", style="bold", highlight=False, soft_wrap=True)
    _require_success(words, subprocess.run(_python(words), check=False).returncode, "above")


def _run_side_by_side(console: Console, commands: dict[Path, list[str]], epochs: int) -> None:
    """Run trainings at the same time, each on a core of its own, with one bar for each."""
    for words in commands.values():
        console.print(f"$ distil {' '.join(words)}", style="bold", highlight=False, soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:.0f}/{task.total:.0f} epochs  {task.fields[news]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    running = {}
    for run, words in commands.items():
        with _log_of(run).open("wb") as log:
            running[run] = subprocess.Popen(_python(words), stdout=log, stderr=subprocess.STDOUT)
    try:
        with Progress(*columns, console=console) as progress:
            tasks = {run: progress.add_task(run.name, total=epochs, news="") for run in commands}
            while any(process.poll() is None for process in running.values()):
                for run, task in tasks.items():
                    done, news = _latest_epoch(run)
                    progress.update(task, completed=done, news=news)
                time.sleep(0.5)
            for task in tasks.values():
                progress.update(task, completed=epochs)
    except BaseException:
        for process in running.values():
            process.terminate()
        raise
    for run, process in running.items():
        _require_success(commands[run], process.returncode, f"in {_log_of(run)}")


def _latest_epoch(run: Path) -> tuple[int, str]:
    """Read the number of finished epochs and the latest loss from a run's metrics."""
    folder = RunFolder(run)
    epochs = [line for line in folder.read_metrics() if line["event"] == "epoch"]
    if not epochs:
        return 0, ""
    return len(epochs), f"loss {epochs[-1]['loss']:.5f}"


def _log_of(run: Path) -> Path:
    return run.with_suffix(".txt")


def _python(words: Sequence[str]) -> list[str]:
    """Return the command that runs distil in this very environment, whatever folder this is."""
    return [sys.executable, "-P", "-m", "cli", *words]


def _require_success(words: Sequence[str], code: int, where: str) -> None:
    if code != 0:
        raise DemoError(
            f"`distil {words[0]}` ended with exit code {code}; its message stands {where}"
        )


def _require_own_folder(output: Path) -> None:
    """Refuse a folder that is not empty: its files would mix with those of the demo."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DemoError(f"{output} is not empty; delete it, or choose another --output")
    output.mkdir(parents=True, exist_ok=True)
