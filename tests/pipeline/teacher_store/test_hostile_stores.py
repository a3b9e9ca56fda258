"""A store that means harm is refused before zarr sees it and before memory is spent."""

import json
import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zarr

from pipeline.storage.folder import LocalFolder, open_folder
from pipeline.teacher_store.reader import TeacherStore
from store_schemas.errors import CorruptError, SchemaError, StoreError
from store_schemas.identity import canonical_json, fingerprint
from store_schemas.layout import TeacherLayout
from store_schemas.stored_identity import StoreIdentity

MOST_BYTES = 16 * 2**20
"""What a refusal may take of memory; the bombs below speak of gigabytes and more."""

FALSEHOODS = [  # section, field, value, what is said of it
    ("people", "num_instances", 10**15, "'num_instances' must be a whole number .* 1000000000000"),
    ("people", "num_instances", 2**40, r"is missing|must have \d+ bytes"),
    ("people", "num_images", 2**40, r"is missing|must have \d+ bytes"),
    ("people", "num_ignored", 2**40, r"is missing|must have \d+ bytes"),
    ("people", "name_length", 2**40, "'name_length' must be at most 4096"),
    ("people", "num_instances", -1, "'num_instances' must be a whole number"),
    ("people", "num_instances", True, "'num_instances' must be a whole number"),
    ("people", "num_instances", 1e15, "'num_instances' must be a whole number"),
    ("people", "num_instances", 0, "num_instances of a teacher store must be at least 1"),
    ("views", "num_views", 2**40, "rows_per_shard must be at most 1 "),
    ("codec", "heatmap_size_hw", [2**40, 2], r"'heatmap_size_hw' must be \[height, width\]"),
    ("codec", "heatmap_size_hw", [2**16, 2**16], "heatmaps of one view must have at most"),
    ("codec", "rows_per_shard", 2**40, "rows_per_shard must be at most 512"),
]


@pytest.fixture(autouse=True)
def no_zarr(whole: Path, begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever opens a store here, it is not zarr."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("zarr was asked")

    for name in ("open", "open_array", "open_group", "open_consolidated"):
        monkeypatch.setattr(zarr, name, refuse)


@pytest.fixture
def frugal() -> Iterator[None]:
    """Fail a test that takes much memory."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MOST_BYTES


def forge(store: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Alter the identity and all metadata that follow from it, fingerprint included."""
    root = json.loads((store / "zarr.json").read_bytes())
    entry = root["attributes"]["teachers"]["hrnet"]
    change(entry["identity"])
    entry["fingerprint"] = fingerprint(entry["identity"])
    (store / "zarr.json").write_bytes(canonical_json(root))
    try:
        identity = StoreIdentity.from_json(entry["identity"])
        layout = TeacherLayout(LocalFolder(store), "hrnet", identity)
    except SchemaError:
        return  # refused already; the reader must come to the same
    for path, document in layout.documents(is_complete=True).items():
        (store / path / "zarr.json").write_bytes(canonical_json(document))


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize(("section", "field", "value", "message"), FALSEHOODS)
@pytest.mark.parametrize("require_complete", [True, False])
def test_sizes_that_no_disk_holds_are_refused_though_all_metadata_agree(
    copy: Path, section: str, field: str, value: Any, message: str, require_complete: bool
) -> None:
    forge(copy, lambda identity: identity[section].update({field: value}))
    with pytest.raises(StoreError, match=message):
        TeacherStore.open(copy, require_complete=require_complete)


@pytest.mark.usefixtures("frugal")
def test_more_views_of_a_person_than_anyone_reads_at_once_are_refused(copy: Path) -> None:
    def change(identity: dict[str, Any]) -> None:
        identity["views"]["num_views"] = 2**30
        identity["codec"]["rows_per_shard"] = 1

    forge(copy, change)
    message = "a chunk of views/image_to_crop must have at most 1073741824 bytes, got 360777252864"
    with pytest.raises(SchemaError, match=message):
        TeacherStore.open(copy)


@pytest.mark.usefixtures("frugal")
def test_a_chunk_that_declares_gigabytes_of_nothing_is_refused_unread(copy: Path) -> None:
    """A file may be as long as it likes without a block on disk."""
    os.truncate(copy / "views/image_to_crop/c.0.0.0.0", 48 * 2**36)
    with pytest.raises(CorruptError, match=r"must have at most 676 bytes, got 3298534883328"):
        TeacherStore.open(copy)


ROOT = "zarr.json"
ARRAY = "teachers/hrnet/heatmaps/zarr.json"
GROUP = "people/zarr.json"
DEPTH = 150_000


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize("name", [ROOT, ARRAY, GROUP])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a":' * DEPTH + b"1" + b"}" * DEPTH, "must be JSON, got: maximum recursion depth"),
        (b"[" * DEPTH + b"]" * DEPTH, "must be JSON, got: maximum recursion depth"),
        (b'{"a":' * 30 + b"1" + b"}" * 30, "must nest at most 24 levels deep"),
        (b'{"a": 1, "a": 1}', "must be JSON, got: a key is repeated"),
        (b'{"a": {"b": 1, "b": 2}}', "must be JSON, got: a key is repeated"),
        (b'{"a": NaN}', "must be JSON, got: NaN is no JSON number"),
        (b'{"a": [-Infinity]}', "must be JSON, got: -Infinity is no JSON number"),
        (b'{"a": 1e999}', "must be JSON, got: 1e999 is no finite number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "must be JSON, got: .*4300 digits"),
        (b"[]", "must be a JSON object, got list"),
        (b"\xff\xfe{}", "must be JSON, got: 'utf-8' codec"),
        (b"", "must be JSON, got: Expecting value"),
    ],
    ids=lambda value: value[:12].decode(errors="replace") if isinstance(value, bytes) else None,
)
def test_json_that_no_careful_writer_writes_is_refused(
    copy: Path, name: str, text: bytes, message: str
) -> None:
    (copy / name).write_bytes(text)
    with pytest.raises(SchemaError, match=f"{name} {message}"):
        TeacherStore.open(copy)


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize("name", [ROOT, ARRAY, GROUP])
def test_huge_json_is_refused_unread(copy: Path, name: str) -> None:
    os.truncate(copy / name, 2**36)
    with pytest.raises(CorruptError, match=f"{name} must have at most 1048576 bytes, got 68719"):
        TeacherStore.open(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"codecs": [{"name": "numcodecs.pickle", "configuration": {}}]},
        {"codecs": [{"name": "gzip", "configuration": {"level": 1}}]},
        {"codecs": [{"name": "import_me", "configuration": {"module": "os"}}]},
        {"storage_transformers": [{"name": "chunk-manifest-json", "configuration": {}}]},
        {"data_type": {"name": "struct", "configuration": {"fields": []}}},
        {"shape": [10**15, 2, 3, 8, 6]},
        {"chunk_grid": {"name": "rectilinear", "configuration": {}}},
        {"must_understand": False},
    ],
    ids=lambda change: f"{next(iter(change.items()))}"[:40],
)
def test_metadata_of_another_kind_are_refused_by_their_field(
    copy: Path, change: dict[str, Any]
) -> None:
    path = copy / ARRAY
    path.write_bytes(canonical_json(json.loads(path.read_bytes()) | change))
    field = next(iter(change))
    with pytest.raises(SchemaError, match=rf"heatmaps/zarr\.json: field '{field}[\w.]*' "):
        TeacherStore.open(copy)


FILES = [
    *(ROOT, ARRAY, "people/area/c.0", "views/image_to_crop/c.0.0.0.0"),
    *("teachers/hrnet/status/c.1.0", "teachers/hrnet/heatmap_crc32c/c.1.0"),
    *("teachers/hrnet/heatmaps/c.1.0.0.0.0", "teachers/hrnet/outputs/c.1.0.0.0"),
    "teachers/hrnet/manifest/sha256/c.0.0.0",
]


def put_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def put_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_a_link(path: Path) -> None:
    """To the right bytes."""
    outside = path.with_name(f".{path.name}")
    path.rename(outside)
    path.symlink_to(outside)


def put_a_link_to_a_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("put", [put_a_pipe, put_a_folder, put_a_link, put_a_link_to_a_device])
@pytest.mark.timeout(20)
def test_what_is_no_plain_file_is_refused_and_never_waited_for(
    copy: Path, name: str, put: Callable[[Path], None]
) -> None:
    put(copy / name)
    with pytest.raises(CorruptError, match=rf"{name} must be a (readable )?regular file"):
        TeacherStore.open(copy).read([3], [0])


@pytest.mark.parametrize("put", [put_a_pipe, put_a_link])
@pytest.mark.timeout(20)
def test_a_receipt_that_is_no_plain_file_is_refused(
    begun: Path, tmp_path: Path, put: Callable[[Path], None]
) -> None:
    store = Path(shutil.copytree(begun, tmp_path / "begun"))
    put(store / "teachers/hrnet/manifest/000001.json")
    with pytest.raises(CorruptError, match=r"000001\.json must be a (readable )?regular file"):
        TeacherStore.open(store, require_complete=False)


@pytest.mark.parametrize(
    "name", ["people", "views/image_to_crop", "teachers", "teachers/hrnet/heatmaps"]
)
def test_a_folder_that_links_out_of_the_store_is_refused(
    copy: Path, tmp_path: Path, name: str
) -> None:
    shutil.move(copy / name, tmp_path / "outside")
    (copy / name).symlink_to(tmp_path / "outside")
    with pytest.raises(CorruptError, match=f"{name} must be a folder; a store holds no links"):
        TeacherStore.open(copy).read([0], [0])


def test_the_path_of_a_store_itself_may_be_a_link(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(copy)
    assert TeacherStore.open(tmp_path / "link").read([0], [0]).status.tolist() == [1]


@pytest.mark.parametrize(
    "url",
    [
        "zip::teacher.zarr.zip",
        "zip://a.zarr::teacher.zip",
        "simplecache::s3://bucket/teacher.zarr",
        "filecache::https://example.org/teacher.zarr",
        "reference://teacher.zarr",
        "ftp://example.org/teacher.zarr",
        "gopher://example.org/teacher.zarr",
        "file:///tmp/teacher.zarr",
    ],
)
def test_chained_urls_and_unknown_schemes_are_refused(url: str) -> None:
    with pytest.raises(StoreError, match="not opened"):
        open_folder(url)
    with pytest.raises(StoreError, match="not opened"):
        TeacherStore.open(url)
