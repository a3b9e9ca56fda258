"""Damaged shards: an error that names shard and row wherever zarr would return zeros or another."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from pipeline.teacher_store.reader import TeacherStore
from store_schemas.errors import CorruptError
from store_schemas.teacher_store import Status

HEATMAPS, OUTPUTS = "heatmaps/c.1.0.0.0.0", "outputs/c.1.0.0.0"


@pytest.mark.parametrize("name", [HEATMAPS, OUTPUTS, "heatmap_crc32c/c.1.0"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "lengthen", "delete", "link"])
def test_damage_to_a_shard_is_an_error_that_names_shard_and_row(
    factory: Any, copy: Path, name: str, damage: str
) -> None:
    path = copy / "teachers/hrnet" / name
    data = path.read_bytes()
    if damage in ("delete", "link"):
        path.unlink()
    if damage == "flip":
        factory.flip(path, 1)  # inside the chunk of row 3, view 0
    if damage in ("truncate", "lengthen"):
        path.write_bytes(data[:-1] if damage == "truncate" else data + b"\0")
    if damage == "link":
        path.with_name("elsewhere").write_bytes(data)
        path.symlink_to(path.with_name("elsewhere"))
    store = TeacherStore.open(copy)
    with pytest.raises(CorruptError, match=r"shard 1, row 3, view 0: "):
        store.read([3], [0])
    assert store.read([0, 6], [0, 1]).status.tolist() == [1, 1]


def test_a_flipped_bit_anywhere_in_a_shard_is_found(factory: Any, copy: Path) -> None:
    """Sampled over chunks, index and checksums of the file."""
    path = copy / "teachers/hrnet/heatmaps/c.2.0.0.0.0"
    data = path.read_bytes()
    for offset in range(0, len(data), 3):
        path.write_bytes(data)
        factory.flip(path, offset)
        with pytest.raises(CorruptError, match=r"shard 2, row 6, view [01]: "):
            TeacherStore.open(copy).read([6, 6], [0, 1])


def test_damage_to_the_status_is_found_on_opening(factory: Any, copy: Path) -> None:
    factory.flip(copy / "teachers/hrnet/status/c.1.0", 0)
    with pytest.raises(CorruptError, match=r"shard 1, rows 3 to 5: .*crc32c"):
        TeacherStore.open(copy)


def test_two_swapped_shard_files_are_found(factory: Any, tmp_path: Path) -> None:
    """Equal lengths, every checksum inside the files right: only the rows' crc32c tell."""
    writer = factory.create(tmp_path)
    for shard in range(3):
        rows = writer.shard_rows(shard)
        heatmaps, outputs, status = factory.shard(rows)
        heatmaps[:] = np.random.default_rng(0).permutation(heatmaps.shape[-1]) + 10 * shard
        status[:] = Status.OK
        factory.write(writer, shard, (heatmaps, np.zeros_like(outputs), status))
    factory.finish(writer)
    factory.swap(*(tmp_path / f"teachers/hrnet/heatmaps/c.{shard}.0.0.0.0" for shard in (0, 1)))
    store = TeacherStore.open(tmp_path)
    for row, shard in ((0, 0), (5, 1)):
        with pytest.raises(CorruptError, match=f"shard {shard}, row {row}, view 1: .* another row"):
            store.read([row], [1])


def test_two_swapped_small_files_are_found(factory: Any, copy: Path) -> None:
    factory.swap(*(copy / f"teachers/hrnet/outputs/c.{shard}.0.0.0" for shard in (0, 1)))
    with pytest.raises(CorruptError, match=r"shard 0, row 2, view 0: .*sha256 of the manifest"):
        TeacherStore.open(copy).read([2], [0])


def rewrite_index(path: Path, change: Callable[[NDArray[np.uint64]], None]) -> None:
    """Alter the shard index (places, 2), offset and length, and give it a valid checksum."""
    data = path.read_bytes()
    index = np.frombuffer(data[-(6 * 16 + 4) : -4], "<u8").reshape(6, 2).copy()
    change(index)
    entries = index.tobytes()
    checksum = google_crc32c.value(entries).to_bytes(4, "little")
    path.write_bytes(data[: -(6 * 16 + 4)] + entries + checksum)


def test_a_chunk_missing_from_the_index_is_an_error_and_not_the_fill_value(copy: Path) -> None:
    def leave_out(index: NDArray[np.uint64]) -> None:
        index[2:4] = 2**64 - 1  # row 4, views 0 and 1

    rewrite_index(copy / "teachers/hrnet" / HEATMAPS, leave_out)
    theirs: Any = zarr.open_group(copy, mode="r")["teachers/hrnet/heatmaps"]
    assert (theirs[4, 0] == 255).all()
    with pytest.raises(CorruptError, match=r"shard 1, row 4, view 0: the chunk is missing"):
        TeacherStore.open(copy).read([4], [0])


def test_two_chunks_swapped_inside_a_shard_are_found(copy: Path) -> None:
    """The index is valid and every chunk whole: zarr returns another person's heatmaps."""
    array: Any = zarr.open_group(copy, mode="r")["teachers/hrnet/heatmaps"]
    before = array[3, 0]

    def exchange(index: NDArray[np.uint64]) -> None:
        index[[0, 5]] = index[[5, 0]]  # row 3, view 0 and row 5, view 1

    rewrite_index(copy / "teachers/hrnet" / HEATMAPS, exchange)
    theirs: Any = zarr.open_group(copy, mode="r")["teachers/hrnet/heatmaps"]
    np.testing.assert_array_equal(theirs[5, 1], before)
    store = TeacherStore.open(copy)
    for row, view in ((3, 0), (5, 1)):
        with pytest.raises(CorruptError, match=f"shard 1, row {row}, view {view}: .*another row's"):
            store.read([row], [view])


@pytest.mark.parametrize("length", [0, 1, 2**64 - 1])
def test_an_index_that_lies_about_a_chunk_is_found(copy: Path, length: int) -> None:
    def lie(index: NDArray[np.uint64]) -> None:
        index[0, 1] = length

    rewrite_index(copy / "teachers/hrnet" / HEATMAPS, lie)
    with pytest.raises(CorruptError, match=r"shard 1, row 3, view 0: "):
        TeacherStore.open(copy).read([3], [0])


def test_a_shard_cut_short_while_it_is_open_is_an_error(copy: Path) -> None:
    store = TeacherStore.open(copy)
    store.read([3], [0])
    os.truncate(copy / "teachers/hrnet" / HEATMAPS, 9)
    with pytest.raises(CorruptError, match=r"shard 1, row 5, view 1: "):
        store.read([5], [1])
    with pytest.raises(CorruptError, match=r"shard 1, row 3, view 0: "):
        store.read([3], [0])


def test_outputs_altered_while_a_shard_is_kept_change_nothing(copy: Path) -> None:
    """They were compared when it was opened, and are in memory since."""
    store = TeacherStore.open(copy)
    before = store.read([3, 5], [0, 1])
    os.truncate(copy / "teachers/hrnet" / OUTPUTS, 9)
    np.testing.assert_array_equal(store.read([3, 5], [0, 1]).keypoints, before.keypoints)


def files_of_shard(store: Path, shard: int) -> list[Path]:
    return sorted((store / "teachers/hrnet").glob(f"*/c.{shard}.*"))


def test_two_shards_swapped_with_all_their_files_are_found(factory: Any, copy: Path) -> None:
    """Each agrees with itself: only the manifest tells."""
    pairs = zip(files_of_shard(copy, 0), files_of_shard(copy, 1), strict=True)
    assert [factory.swap(*pair) for pair in pairs] == [None] * 4
    with pytest.raises(CorruptError, match=r"shard 0, rows 0 to 2: .*sha256 of the manifest"):
        TeacherStore.open(copy)


@pytest.mark.parametrize("names", [["heatmaps"], ["heatmaps", "heatmap_crc32c"]])
def test_a_shard_of_an_earlier_run_is_found(
    factory: Any, copy: Path, tmp_path: Path, names: list[str]
) -> None:
    """Of the same people, views and status, with other heatmaps; as long as the right one."""
    earlier = factory.create(tmp_path / "earlier")
    heatmaps, outputs, status = factory.shard(range(3, 6))
    factory.write(earlier, 1, (255 - heatmaps, outputs, status))
    for name in names:
        (stale,) = (tmp_path / "earlier/teachers/hrnet" / name).glob("c.1.*")
        mine = copy / "teachers/hrnet" / name / stale.name
        assert stale.stat().st_size == mine.stat().st_size
        shutil.copy(stale, mine)
    with pytest.raises(CorruptError, match=r"shard 1, row 5, view 0: "):
        TeacherStore.open(copy).read([5], [0])


@pytest.mark.parametrize("name", ["heatmaps", "outputs", "heatmap_crc32c", "status"])
def test_a_shard_whose_file_is_missing_is_an_error(copy: Path, name: str) -> None:
    next((copy / "teachers/hrnet" / name).glob("c.1.*")).unlink()
    with pytest.raises(CorruptError, match=rf"shard 1, row.* 3.*: .*{name}/c\.1\..* is missing"):
        TeacherStore.open(copy).read([3], [0])
