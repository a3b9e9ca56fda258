"""Reading a store: byte for byte what zarr reads, and an error wherever zarr would return zeros."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from pipeline.coco.people import IgnoreRegions, People, Skeleton
from pipeline.teacher_store import shards
from pipeline.teacher_store.plan import ViewPlan
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teacher_store.writer import TeacherStoreWriter
from store_schemas.chunks import encode_chunk
from store_schemas.errors import CorruptError, IdentityError, IncompleteError, SchemaError
from store_schemas.identity import canonical_json
from store_schemas.teacher_store import Status

NUM_INSTANCES, NUM_VIEWS, ROWS_PER_SHARD = 7, 2, 3
SKELETON = Skeleton(("nose", "left", "right"), ((0, 1), (0, 2)), (0, 2, 1), (0.026, 0.1, 0.1))
IDENTITY = {"teacher": {"architecture": "tokenpose-s", "sha256": "ab" * 32, "frame": "msra"}}
RECIPE = {"batch_size": 32, "deterministic": True}
DIGESTS = np.random.default_rng(1).integers(0, 256, (3, 32)).astype(np.uint8)


def make_people() -> People:
    """Seven people in three images, some keypoints unlabelled; one crowd."""
    random = np.random.default_rng(0)
    keypoints = random.uniform(0, 200, (NUM_INSTANCES, 3, 3)).astype(np.float32)
    keypoints[..., 2] = random.integers(0, 3, keypoints.shape[:2])
    keypoints[keypoints[..., 2] == 0, :2] = np.nan
    ignored = IgnoreRegions(
        np.array([900]),
        np.array([1]),
        np.array([[1.0, 2.0, 3.0, 4.0]]),
        np.array([12.0]),
        np.array([True]),
        np.array([0]),
    )
    return People(
        skeleton=SKELETON,
        category_id=1,
        image_id=np.array([4, 5, 9]),
        image_name=("a.jpg", "train/bé.jpg", "c.jpg"),
        image_size_hw=np.array([[480, 640], [100, 90], [64, 64]]),
        instance_id=np.arange(100, 100 + NUM_INSTANCES),
        image_index=np.array([0, 0, 0, 1, 1, 2, 2]),
        bbox_xywh=random.uniform(1, 60, (NUM_INSTANCES, 4)),
        area=random.uniform(1, 900, NUM_INSTANCES),
        keypoints=keypoints,
        ignored=ignored,
    )


def make_views() -> ViewPlan:
    """A plain view and a mirrored one of each person."""
    image_to_crop = np.random.default_rng(2).uniform(-9, 9, (NUM_INSTANCES, NUM_VIEWS, 2, 3))
    image_to_crop[..., :2] = np.eye(2) * [0.5, 0.75]
    image_to_crop[:, 1, 0, 0] *= -1
    is_mirrored = np.zeros((NUM_INSTANCES, NUM_VIEWS), np.bool_)
    is_mirrored[:, 1] = True
    return ViewPlan(image_to_crop, is_mirrored, (32, 24), 7, {"rotation": 40.0})


def make_shard(
    rows: range,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """What a teacher says of a shard; the second view of row 4 is not finite."""
    random = np.random.default_rng(rows.start)
    heatmaps = random.integers(0, 256, (len(rows), NUM_VIEWS, 3, 8, 6)).astype(np.uint8)
    outputs = random.uniform(0, 1, (len(rows), NUM_VIEWS, 3, 4)).astype(np.float32)
    status = np.full((len(rows), NUM_VIEWS), Status.OK, np.uint8)
    if 4 in rows:
        status[4 - rows.start, 1] = Status.OUTPUT_NOT_FINITE
        outputs[4 - rows.start, 1] = np.inf
    return heatmaps, outputs, status


def create(path: Path, **changes: Any) -> TeacherStoreWriter:
    arguments: dict[str, Any] = {
        "people": make_people(),
        "image_sha256": DIGESTS,
        "views": make_views(),
        "teacher_name": "hrnet",
        "identity": IDENTITY,
        "recipe": RECIPE,
        "provenance": {"zarr": "3"},
        "heatmap_size_hw": (8, 6),
        "threshold": 0.01,
        "rows_per_shard": ROWS_PER_SHARD,
    }
    return TeacherStoreWriter.create(path, **(arguments | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete store of three shards of 3, 3 and 1 people; row 4 failed in view 1."""
    path = tmp_path_factory.mktemp("whole") / "store.zarr"
    writer = create(path)
    for shard in range(3):
        writer.write_shard(shard, *make_shard(writer.shard_rows(shard)))
    writer.finish()
    return path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """The same store, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def good_views() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    pairs = [(row, view) for row in range(7) for view in range(2) if (row, view) != (4, 1)]
    order = np.random.default_rng(5).permutation(len(pairs))
    instances, views = np.array(pairs)[order].T
    return instances, views


def test_every_chunk_is_what_zarr_reads(whole: Path) -> None:
    """The last shard, which is not full, included."""
    store, theirs = TeacherStore.open(whole), zarr.open_group(whole, mode="r")
    heatmaps: Any = theirs["teachers/hrnet/heatmaps"]
    outputs: Any = theirs["teachers/hrnet/outputs"]
    instances, views = good_views()
    found = store.read(instances, views)
    for i, (row, view) in enumerate(zip(instances.tolist(), views.tolist(), strict=True)):
        np.testing.assert_array_equal(found.heatmaps[i], heatmaps[row, view])
        np.testing.assert_array_equal(found.scale[i], outputs[row, view, :, 0])
        np.testing.assert_array_equal(found.confidence[i], outputs[row, view, :, 1])
        np.testing.assert_array_equal(found.keypoints[i], outputs[row, view, :, 2:])
    assert (heatmaps[4, 1] == 255).all()
    assert np.isnan(outputs[4, 1]).all()


def test_every_small_array_is_what_zarr_reads(whole: Path) -> None:
    store, theirs = TeacherStore.open(whole), zarr.open_group(whole, mode="r")
    array: Callable[[str], Any] = lambda path: theirs[path][:]  # type: ignore[index]  # noqa: E731
    np.testing.assert_array_equal(store.status, array("teachers/hrnet/status"))
    np.testing.assert_array_equal(store.views.image_to_crop, array("views/image_to_crop"))
    np.testing.assert_array_equal(store.people.bbox_xywh, array("people/bbox_xywh"))
    np.testing.assert_array_equal(store.people.is_labelled, array("people/is_labelled"))
    assert theirs["people"].attrs["category_id"] == 1


def test_people_and_views_come_back_as_they_were(whole: Path) -> None:
    store, people, views = TeacherStore.open(whole), make_people(), make_views()
    assert store.people.skeleton == people.skeleton
    assert store.people.image_name == people.image_name
    for name in ("image_id", "image_size_hw", "instance_id", "image_index", "area", "keypoints"):
        np.testing.assert_array_equal(getattr(store.people, name), getattr(people, name))
    for name in IgnoreRegions.__dataclass_fields__:
        found, given = getattr(store.people.ignored, name), getattr(people.ignored, name)
        np.testing.assert_array_equal(found, given)
        assert found.dtype == given.dtype
    np.testing.assert_array_equal(store.image_sha256, DIGESTS)
    np.testing.assert_array_equal(store.views.is_mirrored, views.is_mirrored)
    assert (store.views.recipe, store.views.seed) == (views.recipe, views.seed)
    assert (store.input_size_hw, store.heatmap_size_hw) == ((32, 24), (8, 6))
    assert (store.num_views, store.num_shards, store.threshold) == (2, 3, 0.01)
    assert (store.execution_recipe, store.provenance) == (RECIPE, {"zarr": "3"})
    assert store.identity["teacher"] == IDENTITY["teacher"]


def test_views_are_read_with_their_geometry(whole: Path) -> None:
    store = TeacherStore.open(whole)
    found = store.read([6, 0], [1, 0])
    np.testing.assert_array_equal(found.image_to_crop, store.views.image_to_crop[[6, 0], [1, 0]])
    assert found.is_mirrored.tolist() == [True, False]
    assert found.status.tolist() == [1, 1]


def test_heatmaps_are_decoded_into_the_given_array(whole: Path) -> None:
    store = TeacherStore.open(whole)
    out = np.zeros((2, 3, 8, 6), np.uint8)
    assert store.read([1, 2], [0, 1], out).heatmaps is out
    np.testing.assert_array_equal(out, store.read([1, 2], [0, 1]).heatmaps)
    with pytest.raises(ValueError, match=r"out must be uint8 \(2, 3, 8, 6\) in C order"):
        store.read([1, 2], [0, 1], out[:, :, ::-1])
    assert store.read([], []).heatmaps.shape == (0, 3, 8, 6)


def test_only_people_all_of_whose_views_are_there_are_present(whole: Path) -> None:
    assert TeacherStore.open(whole).present_instances().tolist() == [0, 1, 2, 3, 5, 6]


def test_a_failed_view_is_an_error_that_names_its_status(whole: Path) -> None:
    store = TeacherStore.open(whole)
    message = r"shard 1, row 4, view 1 must have status 1 \(ok\), got 3 \(output not finite\)"
    with pytest.raises(IncompleteError, match=message):
        store.read([0, 4], [0, 1])


@pytest.mark.parametrize(
    ("rows", "views"), [([7], [0]), ([-1], [0]), ([0], [2]), ([0, 1], [0]), ([0.0], [0])]
)
def test_a_view_that_the_store_does_not_have_is_an_index_error(
    whole: Path, rows: list[int], views: list[int]
) -> None:
    with pytest.raises(IndexError, match="must be"):
        TeacherStore.open(whole).read(rows, views)


HEATMAPS, OUTPUTS = "heatmaps/c.1.0.0.0.0", "outputs/c.1.0.0.0"


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", [HEATMAPS, OUTPUTS, "heatmap_crc32c/c.1.0"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "lengthen", "delete", "link"])
def test_damage_to_a_shard_is_an_error_that_names_shard_and_row(
    copy: Path, name: str, damage: str
) -> None:
    path = copy / "teachers/hrnet" / name
    data = path.read_bytes()
    if damage in ("delete", "link"):
        path.unlink()
    if damage == "flip":
        flip(path, 1)  # inside the chunk of row 3, view 0
    if damage in ("truncate", "lengthen"):
        path.write_bytes(data[:-1] if damage == "truncate" else data + b"\0")
    if damage == "link":
        path.with_name("elsewhere").write_bytes(data)
        path.symlink_to(path.with_name("elsewhere"))
    store = TeacherStore.open(copy)
    with pytest.raises(CorruptError, match=r"shard 1, row 3, view 0: "):
        store.read([3], [0])
    assert store.read([0, 6], [0, 1]).status.tolist() == [1, 1]


def test_a_flipped_bit_anywhere_in_a_shard_is_found(copy: Path) -> None:
    """Sampled over chunks, index and checksums of the file."""
    path = copy / "teachers/hrnet/heatmaps/c.2.0.0.0.0"
    data = path.read_bytes()
    for offset in range(0, len(data), 3):
        path.write_bytes(data)
        flip(path, offset)
        with pytest.raises(CorruptError, match=r"shard 2, row 6, view [01]: "):
            TeacherStore.open(copy).read([6, 6], [0, 1])


def test_damage_to_the_status_is_found_on_opening(copy: Path) -> None:
    flip(copy / "teachers/hrnet/status/c.1.0", 0)
    with pytest.raises(CorruptError, match=r"shard 1, rows 3 to 5: .*crc32c"):
        TeacherStore.open(copy)


def swap(first: Path, second: Path) -> None:
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)


def test_two_swapped_shard_files_are_found(tmp_path: Path) -> None:
    """Equal lengths, every checksum inside the files right: only the rows' crc32c tell."""
    writer = create(tmp_path)
    for shard in range(3):
        rows = writer.shard_rows(shard)
        heatmaps, outputs, status = make_shard(rows)
        heatmaps[:] = np.random.default_rng(0).permutation(heatmaps.shape[-1]) + 10 * shard
        status[:] = Status.OK
        writer.write_shard(shard, heatmaps, np.zeros_like(outputs), status)
    writer.finish()
    swap(*(tmp_path / f"teachers/hrnet/heatmaps/c.{shard}.0.0.0.0" for shard in (0, 1)))
    store = TeacherStore.open(tmp_path)
    for row, shard in ((0, 0), (5, 1)):
        with pytest.raises(CorruptError, match=f"shard {shard}, row {row}, view 1: .* another row"):
            store.read([row], [1])


def test_two_swapped_small_files_are_found(copy: Path) -> None:
    swap(*(copy / f"teachers/hrnet/outputs/c.{shard}.0.0.0" for shard in (0, 1)))
    with pytest.raises(CorruptError, match=r"shard 0, row 2, view 0: .*sha256 of the manifest"):
        TeacherStore.open(copy).read([2], [0])


def test_a_chunk_missing_from_the_index_is_an_error_and_not_the_fill_value(copy: Path) -> None:
    path = copy / "teachers/hrnet" / HEATMAPS
    data = path.read_bytes()
    index = bytearray(data[-(6 * 16 + 4) : -4])
    index[3 * 16 : 4 * 16] = b"\xff" * 16  # row 4, view 1 is place 3; row 4, view 0 is place 2
    index[2 * 16 : 3 * 16] = b"\xff" * 16
    checksum = google_crc32c.value(bytes(index)).to_bytes(4, "little")
    path.write_bytes(data[: -(6 * 16 + 4)] + index + checksum)
    theirs: Any = zarr.open_group(copy, mode="r")["teachers/hrnet/heatmaps"]
    assert (theirs[4, 0] == 255).all()
    with pytest.raises(CorruptError, match=r"shard 1, row 4, view 0: the chunk is missing"):
        TeacherStore.open(copy).read([4], [0])


def rewrite(store: Path, path: str, change: Callable[[NDArray[Any]], None]) -> None:
    """Alter an array as zarr would, with valid checksums."""
    spec = TeacherStore.open(store)._layout.specs[path]
    values = np.array(zarr.open_array(store / path, mode="r")[:])
    change(values)
    (store / path / spec.chunk_key(0)).write_bytes(encode_chunk(spec, 0, values))


def add_one(values: NDArray[Any]) -> None:
    values.flat[0] += 1


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("people/bbox_xywh", "people.arrays.bbox_xywh"),
        ("people/image_sha256", "people.arrays.image_sha256"),
        ("views/image_to_crop", "views.arrays.image_to_crop"),
    ],
)
def test_an_altered_array_of_the_plan_is_refused_by_its_field(
    copy: Path, path: str, field: str
) -> None:
    rewrite(copy, path, add_one)
    with pytest.raises(IdentityError, match=rf"'{field}' differs: .* restore it from a copy"):
        TeacherStore.open(copy)


def test_an_altered_manifest_is_refused(copy: Path) -> None:
    rewrite(copy, "teachers/hrnet/manifest/status_counts", add_one)
    with pytest.raises(CorruptError, match=r"content must be .*, the manifest's sha256 is"):
        TeacherStore.open(copy)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_array_of_the_plan_is_refused(copy: Path, damage: str) -> None:
    path = copy / "people/keypoints/c.0.0.0"
    data = path.read_bytes()
    path.unlink()
    if damage != "delete":
        path.write_bytes(data[:-1])
    if damage == "flip":
        path.write_bytes(data)
        flip(path, 7)
    with pytest.raises(CorruptError, match=r"people/keypoints/c\.0\.0\.0"):
        TeacherStore.open(copy)


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_bytes(canonical_json(document))


def test_another_schema_is_refused(copy: Path) -> None:
    edit(copy / "zarr.json", lambda d: d["attributes"].update(schema="2"))
    with pytest.raises(SchemaError, match="must have schema '1-draft', got '2'; read it with"):
        TeacherStore.open(copy)


def test_an_identity_altered_after_the_fact_is_refused(copy: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["attributes"]["teachers"]["hrnet"]["identity"]["teacher"]["frame"] = "udp"

    edit(copy / "zarr.json", change)
    with pytest.raises(CorruptError, match="identity was altered after its fingerprint"):
        TeacherStore.open(copy)


def test_metadata_that_schema_and_identity_do_not_imply_is_refused(copy: Path) -> None:
    path = copy / "teachers/hrnet/heatmaps/zarr.json"
    edit(path, lambda d: d.update(shape=[1 << 50, 2, 3, 8, 6]))
    with pytest.raises(SchemaError, match=r"heatmaps/zarr\.json: field 'shape' must be \[7, 2, 3"):
        TeacherStore.open(copy)


def test_a_store_without_its_root_or_with_another_teacher_is_refused(copy: Path) -> None:
    with pytest.raises(SchemaError, match=r"holds the teachers hrnet; .* got 'vitpose'"):
        TeacherStore.open(copy, "vitpose")
    (copy / "zarr.json").unlink()
    with pytest.raises(IncompleteError, match=r"has no zarr\.json"):
        TeacherStore.open(copy)


def test_an_incomplete_store_says_how_much_is_there_and_can_be_read_if_asked(
    tmp_path: Path,
) -> None:
    writer = create(tmp_path)
    writer.write_shard(1, *make_shard(range(3, 6)))
    with pytest.raises(IncompleteError, match=r"has 1 of 3 shards; .* --resume"):
        TeacherStore.open(tmp_path)
    store = TeacherStore.open(tmp_path, require_complete=False)
    assert store.content is None
    assert store.present_instances().tolist() == [3, 5]
    np.testing.assert_array_equal(
        store.read([5], [1]).heatmaps[0], make_shard(range(3, 6))[0][2, 1]
    )
    with pytest.raises(IncompleteError, match=r"shard 0, row 0, view 0 .* got 0 \(not written\)"):
        store.read([0], [0])


def test_a_pickled_store_reads_the_same_and_is_no_other(copy: Path) -> None:
    store = TeacherStore.open(copy)
    expected = store.read(*good_views()).heatmaps
    sent = pickle.dumps(store)
    np.testing.assert_array_equal(pickle.loads(sent).read(*good_views()).heatmaps, expected)
    shutil.rmtree(copy)
    writer = create(copy, recipe={})
    for shard in range(3):
        heatmaps, outputs, status = make_shard(writer.shard_rows(shard))
        writer.write_shard(shard, 255 - heatmaps, outputs, status)
    writer.finish()
    with pytest.raises(IdentityError, match="was replaced after it was opened"):
        pickle.loads(sent)


FORK = """
import os, sys
from pipeline.teacher_store.reader import TeacherStore
store = TeacherStore.open(sys.argv[1])
before = store.read([0, 3, 6], [0, 1, 1]).heatmaps
child = os.fork()
if child == 0:
    same = (store.read([0, 3, 6], [0, 1, 1]).heatmaps == before).all()
    os._exit(0 if same and store._files._state.process == os.getpid() else 3)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert (store.read([0, 3, 6], [0, 1, 1]).heatmaps == before).all()
sys.exit(status)
"""


def test_a_forked_process_opens_its_own_files(whole: Path) -> None:
    project = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", FORK, str(whole)], cwd=project, check=True, timeout=60)


def test_open_files_stay_bounded_and_are_closed(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "MAX_OPEN_FILES", 2)
    before = set(os.listdir("/proc/self/fd"))
    store = TeacherStore.open(whole)
    for _ in range(2):
        store.read(*good_views())
        assert len(set(os.listdir("/proc/self/fd")) - before) <= 2
    store.close()
    assert set(os.listdir("/proc/self/fd")) == before
    assert store.read([0], [0]).status.tolist() == [1]
