"""Laws of stores of keypoints alone: near a store with heatmaps, read by view, maps refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.teacher_store import keypoint_reading
from pipeline.teacher_store.averaging import AveragedTeachers
from pipeline.teacher_store.reader import TeacherStore
from store_schemas.checking import check_store
from store_schemas.errors import CorruptError, SchemaError
from store_schemas.formats import PROFILES
from store_schemas.keypoint_codec import KeypointProfile
from tests.pipeline.caching.conftest import NUM_KEYPOINTS, NUM_VIEWS, SIZE_HW

PROFILE = KeypointProfile.of_crops(SIZE_HW)


def write(caching: Any, name: str = "points.zarr", **changes: Any) -> TeacherStore:
    writer = caching.writer(name, **({"profile": PROFILE} | changes))
    list(caching.worker(writer).write_shards(range(writer.num_shards)))
    writer.finish()
    return TeacherStore.open(caching.folder / name)


def all_views(caching: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    places = np.indices((caching.people.num_instances, NUM_VIEWS)).reshape(2, -1)
    return places[0], places[1]


def test_keypoints_are_those_of_a_store_with_heatmaps_to_half_a_step(caching: Any) -> None:
    whole = write(caching, "maps.zarr", profile=PROFILES["default"])
    store = write(caching)
    assert (store.has_heatmaps, whole.has_heatmaps) == (False, True)
    places = all_views(caching)
    expected, found = whole.read(*places), store.read_keypoints(*places)
    assert np.abs(found.keypoints - expected.keypoints).max() <= PROFILE.step / 2 + 1e-6
    np.testing.assert_allclose(found.confidence, expected.confidence, rtol=2**-11, atol=1e-7)
    same = whole.read_keypoints(*places)
    for name in ("image_to_crop", "is_mirrored", "status"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), strict=True)
    for name in found.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(same, name), getattr(expected, name), strict=True)


def test_a_view_takes_102_bytes_and_one_of_17_keypoints_stays_below_250_in_all(
    caching: Any,
) -> None:
    """17 keypoints, affine, mirroring, status; with nine views a person's own record is shared."""
    store = write(caching)
    folder = caching.folder / "points.zarr/teachers/means"
    sizes = {
        name: sum(path.stat().st_size for path in (folder / name).glob("c.*"))
        for name in ("keypoints", "confidences", "status")
    }
    views = store.num_shards * store.rows_per_shard * NUM_VIEWS
    checksums = 4 * store.num_shards
    assert sizes["keypoints"] == views * NUM_KEYPOINTS * 4 + checksums
    assert sizes["confidences"] == views * NUM_KEYPOINTS * 2 + checksums
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {*sizes, "manifest"}
    a_person = 17 * 12 + 17 + 32 + 8 + 8 + 8 + (8 + 16 + 16 + 32)
    assert 17 * 6 + 1 + 48 + 1 + a_person / 9 < 200


def test_maps_are_refused_in_one_line_and_never_made_up(caching: Any) -> None:
    store = write(caching)
    message = r"must hold heatmaps, but holds the keypoints and confidences of means alone; write"
    with pytest.raises(SchemaError, match=message):
        store.read([0], [0])
    with pytest.raises(SchemaError, match=message):
        _ = store.heatmap_dtype
    whole = write(caching, "maps.zarr", profile=PROFILES["default"])
    with pytest.raises(SchemaError, match=message):
        AveragedTeachers([whole, store])


@pytest.mark.parametrize("profile", [PROFILE, PROFILES["default"]])
def test_a_view_read_by_pieces_is_the_one_of_a_kept_shard(
    caching: Any, monkeypatch: pytest.MonkeyPatch, profile: Any
) -> None:
    whole = write(caching, profile=profile).read_keypoints(*all_views(caching))
    monkeypatch.setattr(keypoint_reading, "KEPT_BYTES", 1)
    store = TeacherStore.open(caching.folder / "points.zarr")
    rows, views = all_views(caching)
    order = np.random.default_rng(0).permutation(len(rows))
    for _ in range(2):
        found = store.read_keypoints(rows[order], views[order])
        for name in whole.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name)[order])
    assert len(store._keypoints._kept) == 1


def test_a_view_that_failed_has_no_keypoints(caching: Any) -> None:
    path: Path = caching.path(caching.people.image_name[1])
    writer = caching.writer("points.zarr", profile=PROFILE)
    path.write_bytes(b"no image")
    worker = caching.worker(writer, skip_bad=True)
    list(worker.write_shards(range(writer.num_shards)))
    writer.finish()
    (checked,) = check_store(caching.folder / "points.zarr")
    assert checked.status_counts["image unreadable"] == NUM_VIEWS
    store = TeacherStore.open(caching.folder / "points.zarr")
    (missing,) = np.flatnonzero((store.status != 1).all(axis=1)).tolist()
    raw = np.fromfile(
        next((caching.folder / "points.zarr/teachers/means/keypoints").glob(f"c.{missing // 2}.*")),
        "<i2",
        offset=(missing % 2) * NUM_VIEWS * NUM_KEYPOINTS * 4,
        count=NUM_VIEWS * NUM_KEYPOINTS * 2,
    )
    assert (raw == -32768).all()


def test_an_altered_keypoint_is_refused(caching: Any) -> None:
    write(caching)
    (path,) = (caching.folder / "points.zarr/teachers/means/keypoints").glob("c.1.*")
    data = bytearray(path.read_bytes())
    data[1] ^= 1
    path.write_bytes(bytes(data))
    store = TeacherStore.open(caching.folder / "points.zarr")
    store.read_keypoints([0], [0])
    with pytest.raises(CorruptError, match=r"keypoints/c\.1"):
        store.read_keypoints([2], [0])


@pytest.mark.parametrize("profile", [PROFILE, PROFILES["default"]])
def test_maps_are_given_exactly_where_they_are_stored(caching: Any, profile: Any) -> None:
    writer = caching.writer("points.zarr", profile=profile)
    has_maps = profile is not PROFILE
    maps = None if has_maps else np.zeros((2, NUM_VIEWS, NUM_KEYPOINTS, 8, 6), np.uint8)
    outputs = np.zeros((2, NUM_VIEWS, NUM_KEYPOINTS, 4 if has_maps else 3), np.float32)
    status = np.ones((2, NUM_VIEWS), np.uint8)
    message = "must have heatmaps, got none" if has_maps else "must have no heatmaps, got"
    with pytest.raises(SchemaError, match=message):
        writer.write_shard(0, maps, outputs, status, "0" * 64)
    with pytest.raises(SchemaError, match="outputs must be float32"):
        writer.write_shard(0, maps, outputs[..., :2], status, "0" * 64)
