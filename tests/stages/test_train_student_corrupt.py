"""Training from a store with damaged chunks: replaced or refused, counted, and exactly resumed."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli import main
from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.progress import NoProgress
from pipeline.runs.run_folder import RunFolder
from pipeline.training.settings import ReplayedViewSettings
from pipeline.training.store_sources import ReplayedViews, open_store_views
from pipeline.training.view_order import ViewBatch, ViewOrder
from stages.settings.training import TrainStudentConfig
from stages.train_student import train_student
from store_schemas.errors import CorruptError
from tests.support.training_batches import tensors_of

SETTINGS = {
    "architecture": "distilpose-xs",
    "epochs": 3,
    "num_loader_workers": 0,
    "num_threads": 1,
    "device": "cpu",
    "optimisation": {"batch_size": 4, "warmup_steps": 0},
}
SKIP = {"on_corrupt": "skip"}


def configure(drawn: Any, store: Path, **changes: object) -> TrainStudentConfig:
    """Settings of a training that replays the augmented views."""
    data = {"view_policy": "replay", **cast(dict[str, object], changes.pop("data", {}))}
    fields = {**SETTINGS, "images": drawn.images, "store": store, "data": data, **changes}
    return load_config(TrainStudentConfig, fields=fields)


def damage(store: Path, *places: tuple[int, int]) -> Path:
    """Flip one byte in the heatmaps of each (row, view)."""
    (folder,) = store.glob("teachers/*/heatmaps")
    metadata = json.loads((folder / "zarr.json").read_bytes())
    rows, num_views = metadata["chunk_grid"]["configuration"]["chunk_shape"][:2]
    for row, view in places:
        (file,) = (
            path
            for path in folder.rglob("*")
            if path.is_file()
            and re.match(rf"c[./]{row // rows}[./]", path.relative_to(folder).as_posix())
        )
        data = bytearray(file.read_bytes())
        num_chunks = rows * num_views  # zarr's index: offset and length of each, and a crc32c
        index = np.frombuffer(data[-16 * num_chunks - 4 : -4], "<u8").reshape(-1, 2)
        offset, length = index[row % rows * num_views + view].tolist()
        data[offset + length // 2] ^= 1
        file.write_bytes(data)
    return store


def open_views(drawn: Any, store: Path, **data: object) -> ReplayedViews:
    config = ReplayedViewSettings.model_validate(data)
    return open_store_views(store, drawn.images, config, reads=frozenset({"heatmaps"}))


def shown_places(drawn: Any, store: Path, epoch: int) -> set[tuple[int, int]]:
    """Return the (row, view) that an epoch of the training here shows."""
    views = open_views(drawn, store)
    ids = views.people.instance_id[views.instances]
    order = ViewOrder(views.instances, ids, views.num_views, 4, 0)
    return {
        (row, view)
        for batch in order.batches(epoch)
        for row, view in zip(*map(np.ndarray.tolist, batch), strict=True)
    }


@pytest.fixture(scope="module")
def place(drawn: Any, store: Path) -> tuple[int, int]:
    """A view that the first and the third epoch show."""
    return min(shown_places(drawn, store, 0) & shown_places(drawn, store, 2))


@pytest.fixture(scope="module")
def damaged(store: Path, place: tuple[int, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which one view is corrupt: as many as may be skipped here."""
    copy = tmp_path_factory.mktemp("damaged") / "teacher.zarr"
    return damage(Path(shutil.copytree(store, copy)), place)


@pytest.fixture(scope="module")
def skipped(drawn: Any, damaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an uninterrupted training that skips the corrupt view."""
    run_folder = tmp_path_factory.mktemp("runs") / "whole"
    train_student(configure(drawn, damaged, data=SKIP), run_folder)
    return run_folder


def results(run_folder: Path) -> dict[str, bytes]:
    folder = RunFolder(run_folder)
    files = (folder.metrics, folder.last_weights, folder.best_weights, folder.training_state)
    return {path.name: path.read_bytes() for path in files}


def where(place: tuple[int, int]) -> str:
    """Say a place as the store's reader does."""
    return rf"shard \d+, row {place[0]}, view {place[1]}\b"


def other_view(view: int) -> int:
    """Return the second of the two augmented views that there are."""
    return 3 - view


def test_crop_keypoints_and_targets_are_those_of_the_view_that_takes_the_place(
    drawn: Any, store: Path, damaged: Path, place: tuple[int, int]
) -> None:
    row, view = place
    other = (row + 1) % 4
    asked = ViewBatch(np.array([row, other]), np.array([view, view]))
    shown = ViewBatch(np.array([row, other]), np.array([other_view(view), view]))
    replaced = open_views(drawn, damaged, **SKIP).dataset((128, 96))[asked]
    expected = open_views(drawn, store).dataset((128, 96))[shown]
    for name in ("images", "keypoints", "keypoint_weights", "heatmaps", "scale"):
        assert tensors_of(replaced)[name].equal(tensors_of(expected)[name]), name
    assert [found[:3] for found in replaced.replacements] == [(row, view, other_view(view))]
    assert not expected.replacements


class Killed(Exception):
    pass


class KilledAtStep(NoProgress):
    """A training that dies in the middle of an epoch."""

    def __init__(self, step: int) -> None:
        self.last_step = step

    def update(self, done: int, *news: Any) -> None:
        if done >= self.last_step:
            raise Killed


@pytest.mark.parametrize("num_epochs", [1, 3])
def test_a_resumed_training_that_skips_equals_an_uninterrupted_one_byte_for_byte(
    drawn: Any, damaged: Path, skipped: Path, tmp_path: Path, num_epochs: int
) -> None:
    """Killed after the last step of an epoch, before its checkpoint."""
    config = configure(drawn, damaged, data=SKIP)
    num_steps = int(str(RunFolder(skipped).read_metrics()[-1]["step"]))
    with pytest.raises(Killed):
        train_student(config, tmp_path / "run", progress=KilledAtStep(num_epochs * num_steps // 3))
    assert len(RunFolder(tmp_path / "run").read_metrics()) == num_epochs - 1
    train_student(config, tmp_path / "run", resume=True)
    assert results(tmp_path / "run") == results(skipped)


def test_loader_workers_change_nothing_of_what_is_skipped(
    drawn: Any, damaged: Path, skipped: Path, tmp_path: Path
) -> None:
    config = configure(drawn, damaged, data=SKIP, num_loader_workers=2)
    result = train_student(config, tmp_path / "run")
    assert results(tmp_path / "run") == results(skipped)
    assert "replaced by another of the same person: 2" in (result.corrupt_views or "")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_corrupt_view_stops_a_training_that_was_not_told_to_skip(
    drawn: Any, damaged: Path, place: tuple[int, int], tmp_path: Path, num_workers: int
) -> None:
    config = configure(drawn, damaged, num_loader_workers=num_workers)
    with pytest.raises(CorruptError, match=where(place)) as refusal:
        train_student(config, tmp_path / "run")
    assert "\n" not in str(refusal.value)


def test_a_training_that_a_corrupt_view_stopped_can_go_on_by_skipping(
    drawn: Any, store: Path, tmp_path: Path
) -> None:
    """Its end is then that of one that skipped from the start."""
    place = min(shown_places(drawn, store, 1))
    copy = damage(Path(shutil.copytree(store, tmp_path / "damaged.zarr")), place)
    run_folder, whole = tmp_path / "run", tmp_path / "whole"
    with pytest.raises(CorruptError, match=where(place)):
        train_student(configure(drawn, copy, epochs=2), run_folder)
    assert len(RunFolder(run_folder).read_metrics()) == 1
    skip = configure(drawn, copy, epochs=2, data=SKIP)
    train_student(skip, run_folder, resume=True)
    train_student(skip, whole)
    assert results(run_folder) == results(whole)


def test_metrics_and_log_name_what_was_replaced(skipped: Path, place: tuple[int, int]) -> None:
    lines = RunFolder(skipped).read_metrics()
    found = [(line.get("replaced_views"), line.get("new_corrupt_views")) for line in lines]
    assert found == [(1, [list(place)]), (None, None), (1, [])]
    log = RunFolder(skipped).log.read_text()
    warnings = [line for line in log.splitlines() if " WARNING " in line]
    assert len(warnings) == 2
    assert re.search(where(place), warnings[0])
    assert "replaced by another of the same person: 2" in warnings[1]


def distil(drawn: Any, store: Path, run_folder: Path, *arguments: str) -> Result:
    command = f"train-student --store {store} --images {drawn.images} --preset distilpose-xs "
    command += f"--run-folder {run_folder} --epochs 1 --batch-size 4 --workers 0 --threads 1"
    options = ["--view-policy", "replay", "--set", "optimisation.warmup_steps=0", *arguments]
    return CliRunner().invoke(main, [*command.split(), *options])


def test_the_command_says_what_it_skipped_when_it_is_found_and_at_the_end(
    drawn: Any, damaged: Path, place: tuple[int, int], tmp_path: Path
) -> None:
    result = distil(drawn, damaged, tmp_path / "run", "--on-corrupt", "skip", "--paranoid")
    assert result.exit_code == 0, result.output
    found, done, summary = result.stdout.splitlines()[-3:]
    assert re.search(where(place), found)
    assert "1 epoch, " in done
    assert summary.startswith("corrupt: 1 of ")
    data = RunFolder(tmp_path / "run").read_config(TrainStudentConfig).data
    assert isinstance(data, ReplayedViewSettings)
    assert data.paranoid


def test_more_corrupt_views_than_may_be_skipped_are_exit_code_1(
    drawn: Any, store: Path, tmp_path: Path
) -> None:
    """Two of fewer than 2,000 person-views."""
    two = sorted(shown_places(drawn, store, 0))[:2]
    copy = damage(Path(shutil.copytree(store, tmp_path / "damaged.zarr")), *two)
    result = distil(drawn, copy, tmp_path / "run", "--on-corrupt", "skip")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert re.search(r"at most 1 may be corrupt .* got 2, the last one: .*--resume", result.stderr)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_person_without_a_readable_view_stops_a_training_that_skips(
    drawn: Any, make_store: Callable[..., Path], tmp_path: Path, num_workers: int
) -> None:
    store = damage(make_store(), (0, 1), (0, 2))
    config = configure(drawn, store, data=SKIP, num_loader_workers=num_workers)
    person = open_views(drawn, store).people.instance_id[0]
    with pytest.raises(CorruptError, match=rf"^.*views in use of person {person} \(row 0\)"):
        train_student(config, tmp_path / "run")


def test_no_view_but_those_in_use_takes_the_place_of_a_corrupt_one(
    drawn: Any, store: Path, tmp_path: Path
) -> None:
    """With one view in use there is none, although the store holds another one."""
    copy = damage(Path(shutil.copytree(store, tmp_path / "damaged.zarr")), (1, 1))
    person = open_views(drawn, copy).people.instance_id[1]
    config = configure(drawn, copy, data={**SKIP, "num_views": 1})
    expected = (
        rf"^\S*damaged\.zarr: view 1 of person {person} \(row 1\) must be readable, as it is the "
        r"only one in use; repair the store, or use more .*\(data\.num_views, cache-teacher "
        rf"--views\): .*{where((1, 1))}"
    )
    with pytest.raises(CorruptError, match=expected):
        train_student(config, tmp_path / "run")


@pytest.mark.parametrize("on_corrupt", ["raise", "skip"])
def test_without_distillation_no_heatmaps_are_read_so_none_can_be_corrupt(
    drawn: Any, make_store: Callable[..., Path], tmp_path: Path, on_corrupt: str
) -> None:
    store = make_store()
    for shard in store.glob("teachers/*/heatmaps/c*"):
        shutil.rmtree(shard) if shard.is_dir() else shard.unlink()
    data = {"on_corrupt": on_corrupt}
    config = configure(drawn, store, epochs=1, distillation=False, data=data)
    assert train_student(config, tmp_path / "run").corrupt_views is None


def test_paranoia_without_a_store_is_refused(drawn: Any) -> None:
    source = {"annotations": drawn.annotations, "distillation": False, "store": None}
    with pytest.raises(ConfigError, match=r"setting data\.paranoid \(data of annotations\)"):
        load_config(
            TrainStudentConfig,
            fields={**SETTINGS, "images": drawn.images, **source, "data": {"paranoid": True}},
        )


def test_new_views_take_the_predictions_of_another_view_where_the_plain_one_is_corrupt(
    drawn: Any, store: Path, tmp_path: Path
) -> None:
    """The plain view is in use, and the augmented ones stand in for it, carried like it."""
    copy = damage(Path(shutil.copytree(store, tmp_path / "damaged.zarr")), (1, 0))
    carry = {"view_policy": "carry"}
    with pytest.raises(CorruptError, match=where((1, 0))):
        train_student(configure(drawn, copy, data=carry), tmp_path / "stopped")
    config = configure(drawn, copy, epochs=1, data={**carry, **SKIP})
    said: list[str] = []
    result = train_student(config, tmp_path / "run", say=said.append)
    assert result.corrupt_views is not None
    (line,) = [line for line in said if line.startswith("corrupt view 1")]
    assert "view 1 of the same person takes its place" in line
    assert re.search(where((1, 0)), line)
