"""Laws of crops and tokens in a store: what zarr reads, bound to their rows, damaged ones found."""

import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from pipeline.frames.crops import decode_crop, encode_crop
from pipeline.repair.verification import verify_store
from pipeline.storage.folder import LocalFolder
from pipeline.teacher_store.plan import layout_of
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teacher_store.writer import TeacherStoreWriter
from store_schemas.checking import check_store
from store_schemas.errors import CorruptError, IncompleteError, SchemaError
from store_schemas.formats import NONE, OptionalArrays, TokenFormat, crop_format
from store_schemas.root_metadata import read_entry

SIZE_HW = (32, 24)
CROPS = crop_format(SIZE_HW, 90, "4:2:0")
OPTIONAL = OptionalArrays(CROPS, TokenFormat(("keypoint", "visual"), 5, (2, 4)))
SHARDED = {"crops": "c.1.0.0", "keypoint_tokens": "c.1.0.0.0", "visual_tokens": "c.1.0.0.0"}


def crop(row: int, view: int) -> NDArray[np.uint8]:
    random = np.random.default_rng((row, view))
    return random.integers(0, 256, (*SIZE_HW, 3), np.uint8)


def extras(rows: range) -> dict[str, NDArray[Any]]:
    """Return crops and tokens of a shard of two views each."""
    crops = np.empty((len(rows), 2), np.object_)
    for place in np.ndindex(crops.shape):
        crops[place] = encode_crop(crop(rows[place[0]], place[1]), CROPS)
    random = np.random.default_rng(rows.start)
    shapes = OPTIONAL.token_shapes(3)
    tokens = {
        name: random.normal(0, 1, (len(rows), 2, *shape)).astype(np.float16)
        for name, shape in shapes.items()
    }
    return {"crops": crops, **tokens}


def write(factory: Any, writer: TeacherStoreWriter, shard: int) -> None:
    rows = writer.shard_rows(shard)
    heatmaps, outputs, status = factory.shard(rows)
    images = factory.images_of(rows)
    writer.write_shard(shard, heatmaps, outputs, status, images, optional=extras(rows))


@pytest.fixture(scope="module")
def rich(factory: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete store with crops and tokens. Not to be changed."""
    path = tmp_path_factory.mktemp("rich") / "store.zarr"
    writer = factory.create(path, optional=OPTIONAL)
    for shard in range(3):
        write(factory, writer, shard)
    factory.finish(writer)
    return path


@pytest.fixture
def harmed(rich: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rich, tmp_path / "copy"))


def values_of(store: Path, name: str) -> NDArray[Any]:
    return np.asarray(zarr.open_array(store / "teachers/hrnet" / name, mode="r")[...])


def test_crops_and_tokens_are_what_zarr_reads(factory: Any, rich: Path) -> None:
    rows, views = factory.good_views()
    store = TeacherStore.open(rich)
    files, lengths = values_of(rich, "crops")[rows, views], values_of(rich, "crop_bytes")
    for found, file, length in zip(
        store.read_crops(rows, views), files, lengths[rows, views].tolist(), strict=True
    ):
        np.testing.assert_array_equal(found, decode_crop(file[:length], SIZE_HW), strict=True)
        assert not file[length:].any()
    tokens = store.read_tokens(rows, views)
    assert list(tokens) == ["keypoint", "visual"]
    for kind, found in tokens.items():
        theirs = values_of(rich, f"{kind}_tokens")[rows, views]
        np.testing.assert_array_equal(found, theirs, strict=True)


def test_the_check_without_a_pipeline_decodes_them_too(rich: Path) -> None:
    (checked,) = check_store(rich)
    assert checked.status_counts["ok"] == 13


def test_each_view_has_its_own_crop(factory: Any, rich: Path) -> None:
    rows, views = factory.good_views()
    for found, row, view in zip(
        TeacherStore.open(rich).read_crops(rows, views), rows.tolist(), views.tolist(), strict=True
    ):
        expected = decode_crop(encode_crop(crop(row, view), CROPS), SIZE_HW)
        np.testing.assert_array_equal(found, expected, strict=True)


def test_heatmaps_do_not_change_by_what_lies_beside_them(
    factory: Any, rich: Path, whole: Path
) -> None:
    rows, views = factory.good_views()
    ours, theirs = (TeacherStore.open(path).read(rows, views) for path in (rich, whole))
    for name in ours.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), strict=True)


def test_one_open_shard_and_another_process_read_the_same(
    factory: Any, rich: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, views = factory.good_views()
    store = TeacherStore.open(rich)
    expected, tokens = store.read_crops(rows, views), store.read_tokens(rows, views)
    monkeypatch.setattr(LocalFolder, "max_open_files", 1)
    again = pickle.loads(pickle.dumps(store))
    crops = again._more._arrays["crops"]
    for _ in range(2):  # the second time by pieces, as every shard was compared then
        np.testing.assert_array_equal(again.read_crops(rows, views), expected, strict=True)
        assert len(crops.kept()) == 1
        found = again.read_tokens(rows, views)
        for kind in tokens:
            np.testing.assert_array_equal(found[kind], tokens[kind], strict=True)
    monkeypatch.setattr(crops._state, "process", os.getpid() + 1)  # as after a fork
    assert not crops.kept()
    assert not crops._state.compared
    again.close()
    assert not any(array.kept() for array in again._more._arrays.values())


def read_all(store: TeacherStore, rows: list[int], views: list[int]) -> None:
    store.read_crops(rows, views)
    store.read_tokens(rows, views)


@pytest.mark.parametrize("name", SHARDED)
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_an_error_that_names_shard_row_and_view_and_verify_names_the_file(
    factory: Any, harmed: Path, name: str, damage: str
) -> None:
    path = harmed / "teachers/hrnet" / name / SHARDED[name]
    if damage == "flip":
        factory.flip(path, 20)  # inside the chunk of row 3, view 0
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    store = TeacherStore.open(harmed)
    with pytest.raises(CorruptError, match=r"shard 1, row 3, view 0: "):
        read_all(store, [3], [0])
    read_all(store, [0, 6], [0, 1])
    entry = read_entry(LocalFolder(harmed), None)
    layout = layout_of(LocalFolder(harmed), entry)
    faults = verify_store(layout, entry).faults
    assert list(faults.shards) == [1]
    assert f"teachers/hrnet/{name}/" in faults.shards[1][0]
    with pytest.raises(CorruptError, match=f"teachers/hrnet/{name}/"):
        check_store(harmed)


@pytest.mark.parametrize("name", SHARDED)
def test_a_whole_chunk_of_another_view_is_found(harmed: Path, name: str) -> None:
    path = harmed / "teachers/hrnet" / name / SHARDED[name]
    data = bytearray(path.read_bytes())
    index = np.frombuffer(bytes(data[-16 * 6 - 4 : -4]), "<u8").reshape(6, 2)
    entries = index[[2, 1, 0, 3, 4, 5]].tobytes()
    data[-16 * 6 - 4 :] = entries + google_crc32c.value(entries).to_bytes(4, "little")
    path.write_bytes(data)
    store = TeacherStore.open(harmed)
    with pytest.raises(CorruptError, match=r"row 3, view 0: .* which is another row's"):
        read_all(store, [3], [0])
    read_all(store, [3], [1])


def test_a_damaged_crops_file_makes_its_shard_pending_again(factory: Any, tmp_path: Path) -> None:
    path = tmp_path / "store.zarr"
    writer = factory.create(path, optional=OPTIONAL)
    write(factory, writer, 0)
    write(factory, writer, 1)
    factory.flip(path / "teachers/hrnet/crops/c.1.0.0", 20)
    factory.let_go(path)
    resumed = factory.resume(path)
    assert resumed.pending_shards() == [1, 2]


def test_a_view_that_failed_has_neither_crop_nor_tokens(factory: Any, rich: Path) -> None:
    """Whatever it left there: row 4 failed in view 1."""
    assert values_of(rich, "crop_bytes")[4].tolist()[1] == 0
    assert not values_of(rich, "crops")[4, 1].any()
    assert np.isnan(values_of(rich, "visual_tokens")[4, 1]).all()
    for read in (TeacherStore.open(rich).read_crops, TeacherStore.open(rich).read_tokens):
        with pytest.raises(IncompleteError, match="row 4, view 1 must have status 1"):
            read([4], [1])


def without(given: Mapping[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    return {key: values for key, values in given.items() if key != name}


def test_arrays_that_are_missing_or_unfit_are_refused(factory: Any, tmp_path: Path) -> None:
    writer = factory.create(tmp_path / "store.zarr", optional=OPTIONAL)
    rows = writer.shard_rows(0)
    shard, images, given = factory.shard(rows), factory.images_of(rows), extras(rows)
    with pytest.raises(SchemaError, match=r"crops, keypoint_tokens, visual_tokens .*, got none"):
        writer.write_shard(0, *shard, images)
    with pytest.raises(SchemaError, match="got keypoint_tokens, visual_tokens"):
        writer.write_shard(0, *shard, images, optional=without(given, "crops"))
    crops = given["crops"].copy()
    too_long = np.zeros(CROPS.length + 1, np.uint8)
    for bad in (None, b"a file", np.zeros(0, np.uint8), np.zeros(9, np.int64), too_long):
        crops[1, 0] = bad
        match = rf"must have uint8 \(1 to {CROPS.length},\) of every view .* of row 1, view 0"
        with pytest.raises(SchemaError, match=match):
            writer.write_shard(0, *shard, images, optional=given | {"crops": crops})
    tokens = given["visual_tokens"].copy()
    tokens[2, 1, 0, 0] = np.inf
    with pytest.raises(SchemaError, match=r"visual_tokens .* must be finite in float16"):
        writer.write_shard(0, *shard, images, optional=given | {"visual_tokens": tokens})
    wide = given["visual_tokens"].astype(np.float32)
    with pytest.raises(SchemaError, match="visual_tokens must be float16"):
        writer.write_shard(0, *shard, images, optional=given | {"visual_tokens": wide})
    assert writer.pending_shards() == [0, 1, 2]


def test_a_store_without_them_is_refused_in_one_line(whole: Path) -> None:
    store = TeacherStore.open(whole)
    assert store.optional == NONE
    with pytest.raises(SchemaError, match="must hold crops, but was written without"):
        store.read_crops([0], [0])
    with pytest.raises(SchemaError, match="must hold tokens, but was written without"):
        store.read_tokens([0], [0])
