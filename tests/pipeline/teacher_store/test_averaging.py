"""Several teachers of a store read as one are the mean of their heat, made when it is read."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.teacher_store.averaging import AveragedTeachers, open_teachers
from pipeline.teacher_store.reader import TeacherStore
from store_schemas.errors import IncompleteError, SchemaError
from store_schemas.heatmap_codec import dequantise_heatmaps
from store_schemas.profiles import PROFILES
from store_schemas.teacher_store import Status

pytestmark = pytest.mark.usefixtures("quick_disk")


def add(factory: Any, path: Path, name: str, failed: int | None = None, **changes: Any) -> None:
    """Let a teacher join that contradicts the first one; it failed at view 0 of a row."""
    arguments: dict[str, Any] = {
        "name": name,
        "recipe": {},
        "provenance": {},
        "heatmap_size_hw": (8, 6),
        "rows_per_shard": 2,
    }
    arguments |= changes
    writer = factory.create(path, **arguments)
    dtype = arguments.get("profile", PROFILES["default"]).dtype
    for shard in writer.pending_shards():
        rows = writer.shard_rows(shard)
        random = np.random.default_rng([rows.start, len(name)])
        shape = (len(rows), 2, 3)
        heat = random.integers(0, 256, (*shape, *arguments["heatmap_size_hw"]))
        outputs = random.uniform(0, 1, (*shape, 4)).astype(np.float32)
        status = np.full(shape[:2], Status.OK, np.uint8)
        if failed is not None and failed in rows:
            status[failed - rows.start, 0] = Status.IMAGE_UNREADABLE
        factory.write(writer, shard, (heat.astype(dtype), outputs, status))
    factory.finish(writer)


@pytest.fixture(scope="module")
def three(factory: Any, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Path(shutil.copytree(whole, tmp_path_factory.mktemp("three") / "store.zarr"))
    add(factory, path, "b", failed=0)
    add(factory, path, "half", profile=PROFILES["lossless-float16"], threshold=0.0)
    return path


def common_views() -> tuple[list[int], list[int]]:
    """Rows and views that all three have: the first failed at (4, 1), b at (0, 0)."""
    pairs = [(r, v) for r in range(7) for v in range(2) if (r, v) not in {(4, 1), (0, 0)}]
    return [row for row, _ in pairs], [view for _, view in pairs]


def test_the_heat_is_the_mean_up_to_half_a_level_but_at_the_peak(three: Path) -> None:
    names = ("hrnet", "b", "half")
    found = open_teachers(three, names).read(*common_views())
    each = [TeacherStore.open(three, name).read(*common_views()) for name in names]
    mean = np.mean([dequantise_heatmaps(s.heatmaps, s.scale) for s in each], axis=0)
    heat = dequantise_heatmaps(found.heatmaps, found.scale)
    assert found.heatmaps.dtype == np.uint8
    error = np.abs(heat - mean) / found.scale[..., None, None]
    assert error.max() <= 1.001
    assert np.quantile(error, 0.95) <= 0.5001
    flat = mean.reshape(*mean.shape[:2], -1)
    np.testing.assert_allclose(found.confidence, flat.max(axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(
        found.heatmaps.reshape(flat.shape).argmax(axis=-1), flat.argmax(axis=-1)
    )


def test_a_keypoint_is_the_teachers_mean_by_their_confidence(three: Path) -> None:
    found = open_teachers(three, ("hrnet", "b")).read([1], [0])
    a, b = (TeacherStore.open(three, name).read([1], [0]) for name in ("hrnet", "b"))
    for k in range(3):
        points = [a.keypoints[0, k], b.keypoints[0, k]]
        weights = [a.confidence[0, k], b.confidence[0, k]]
        expected = np.average(points, axis=0, weights=weights)
        np.testing.assert_allclose(found.keypoints[0, k], expected, rtol=1e-5)


def test_those_present_are_present_in_all(three: Path) -> None:
    both = open_teachers(three, ("hrnet", "b"))
    assert both.present_instances().tolist() == [1, 2, 3, 5, 6]
    assert both.status[4, 1] == Status.OUTPUT_NOT_FINITE
    assert both.status[0, 0] == Status.IMAGE_UNREADABLE
    with pytest.raises(IncompleteError, match="row 0, view 0 must have status 1"):
        both.read([0], [0])


def test_the_order_of_the_names_changes_nothing_and_a_copy_reads_the_same(three: Path) -> None:
    one, other = (open_teachers(three, names) for names in (("b", "hrnet"), ("hrnet", "b")))
    copy = pickle.loads(pickle.dumps(one))
    assert one.fingerprint == other.fingerprint == copy.fingerprint
    assert one.content_sha256 == other.content_sha256 == copy.content_sha256
    out = np.zeros((2, 3, 8, 6), np.uint8)
    given = one.read([1, 2], [0, 1], out)
    assert given.heatmaps is out
    for found in (other.read([1, 2], [0, 1]), copy.read([1, 2], [0, 1])):
        np.testing.assert_array_equal(found.heatmaps, out)
        np.testing.assert_array_equal(found.scale, given.scale)
    views = one.read_image_to_crop([1, 2], [0, 1])
    np.testing.assert_array_equal(views, given.image_to_crop)


def test_another_teacher_in_the_average_is_another_source(three: Path) -> None:
    pair, trio = (open_teachers(three, n) for n in (("hrnet", "b"), ("hrnet", "b", "half")))
    assert pair.fingerprint != trio.fingerprint
    assert pair.content_sha256 != trio.content_sha256
    single = open_teachers(three, ("b",))
    assert isinstance(single, TeacherStore)
    assert isinstance(pair, AveragedTeachers)
    assert single.teacher == "b"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": {"heatmap_frame": "udp"}}, "heatmap_frame of the first is None"),
        ({"heatmap_size_hw": (4, 3)}, r"heatmap_size_hw of the first is \(8, 6\), .* \(4, 3\)"),
    ],
)
def test_maps_of_another_frame_or_size_are_refused_by_name(
    factory: Any, copy: Path, changes: dict[str, Any], message: str
) -> None:
    add(factory, copy, "zz", **changes)
    with pytest.raises(SchemaError, match=f"teachers hrnet and zz cannot be averaged: {message}"):
        open_teachers(copy, ("zz", "hrnet"))


def test_a_teacher_is_named_once_and_is_there(three: Path) -> None:
    with pytest.raises(SchemaError, match="teachers to average must differ, got b, b"):
        open_teachers(three, ("b", "b"))
    with pytest.raises(SchemaError, match=r"holds the teachers b, half, hrnet; .* got 'c'"):
        open_teachers(three, ("b", "c"))
