"""Laws of int8 tokens from the teacher to the reader: near what it said, measured, and bound."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from pipeline.repair.metadata import repair_manifest
from pipeline.settings import TeacherSettings
from pipeline.teacher_store import optional_reading
from pipeline.teacher_store.inspection import summarise_store
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teachers import Teacher
from store_schemas.checking import check_store
from store_schemas.errors import CorruptError, SchemaError
from store_schemas.formats import OptionalArrays, TokenFormat, crop_format
from store_schemas.heatmap_codec import is_measured
from tests.pipeline.caching.conftest import BATCH, NUM_VIEWS, SIZE_HW
from tests.pipeline.caching.test_optional_arrays import DIM, GRID_HW, Tokens

INT8 = TokenFormat(("keypoint", "visual"), DIM, GRID_HW, "int8")
OPTIONAL = OptionalArrays(crop_format(SIZE_HW, 90, "4:4:4"), INT8)


@pytest.fixture
def with_tokens(caching: Any) -> Any:
    caching.teacher = Teacher(Tokens(), TeacherSettings(batch_size=BATCH))
    return caching


def write(caching: Any, optional: OptionalArrays = OPTIONAL, **how: Any) -> TeacherStore:
    writer = caching.writer("a.zarr", optional=optional)
    list(caching.worker(writer, **how).write_shards(range(writer.num_shards)))
    writer.finish()
    return TeacherStore.open(caching.folder / "a.zarr")


def all_views(caching: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    places = np.indices((caching.people.num_instances, NUM_VIEWS)).reshape(2, -1)
    return places[0], places[1]


def live_tokens(caching: Any, store: TeacherStore) -> Mapping[str, NDArray[np.float32]]:
    crops = store.read_crops(*all_views(caching))
    tokens = Tokens().forward(caching.teacher.preprocess(crops), with_tokens=True).tokens
    assert tokens is not None
    return tokens


def test_tokens_are_within_a_254th_of_what_the_teacher_said(with_tokens: Any) -> None:
    store = write(with_tokens)
    found, live = store.read_tokens(*all_views(with_tokens)), live_tokens(with_tokens, store)
    assert tuple(found) == ("keypoint", "visual")
    for kind, expected in live.items():
        assert found[kind].dtype == np.float32
        largest = np.abs(expected).max(axis=-1, keepdims=True)
        assert (np.abs(found[kind] - expected) <= largest / 254 * 1.002).all()
        assert (found[kind] != expected).any()


def test_the_error_is_measured_over_every_sixteenth_person_and_kept_in_the_manifest(
    with_tokens: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = (1, 4, 10)
    monkeypatch.setattr(
        "pipeline.caching.prediction_stream.is_measured", lambda row: row in measured
    )
    assert not is_measured(1)
    store = write(with_tokens)
    rows = all_views(with_tokens)[0]
    found, live = store.read_tokens(*all_views(with_tokens)), live_tokens(with_tokens, store)
    errors = np.concatenate(
        [
            (np.abs(found[k] - v) / np.abs(v).max(axis=-1, keepdims=True))[
                np.isin(rows, measured)
            ].ravel()
            for k, v in live.items()
        ]
    )
    (summary,) = summarise_store(with_tokens.writer("b.zarr").layout.folder).teachers
    assert summary.token_error is None, "a store without tokens has no such error"
    (summary,) = summarise_store(store._layout.folder).teachers
    error = summary.token_error
    assert error is not None
    assert error.num_values == errors.size
    assert error.largest == pytest.approx(errors.max(), rel=1e-3)
    assert error.rms == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-3)


def test_the_number_of_threads_changes_no_byte(with_tokens: Any) -> None:
    write(with_tokens, num_threads=1)
    before = with_tokens.digests("a.zarr")
    (with_tokens.folder / "a.zarr").rename(with_tokens.folder / "old.zarr")
    for lease in with_tokens.leases:
        lease.release()
    write(with_tokens, num_threads=4)
    assert with_tokens.digests("a.zarr") == before


def test_a_view_read_by_pieces_is_the_one_of_a_kept_shard(
    with_tokens: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(with_tokens).read_tokens(*all_views(with_tokens))
    monkeypatch.setattr(optional_reading, "KEPT_BYTES", 1)
    store = TeacherStore.open(with_tokens.folder / "a.zarr")
    rows, views = all_views(with_tokens)
    order = np.random.default_rng(0).permutation(len(rows))
    for _ in range(2):  # the second time each shard was compared before
        found = store.read_tokens(rows[order], views[order])
        for kind, values in whole.items():
            np.testing.assert_array_equal(found[kind], values[order])


def test_a_view_that_failed_has_no_tokens_and_the_store_is_whole(with_tokens: Any) -> None:
    path: Path = with_tokens.path(with_tokens.people.image_name[1])
    writer = with_tokens.writer("a.zarr", optional=OPTIONAL)
    path.write_bytes(b"no image")
    worker = with_tokens.worker(writer, skip_bad=True)
    list(worker.write_shards(range(writer.num_shards)))
    writer.finish()
    (checked,) = check_store(with_tokens.folder / "a.zarr")
    assert checked.status_counts["image unreadable"] == NUM_VIEWS
    group = zarr.open_group(with_tokens.folder / "a.zarr/teachers/means", mode="r")
    tokens, scale = np.asarray(group["visual_tokens"]), np.asarray(group["visual_token_scale"])
    status = np.asarray(group["status"])
    assert (tokens[status != 1] == -128).all()
    assert np.isnan(scale[status != 1]).all()
    assert tokens[status == 1].min() >= -127
    store = TeacherStore.open(with_tokens.folder / "a.zarr")
    found = store.read_tokens([0], [1])["visual"][0]
    np.testing.assert_array_equal(
        found, tokens[0, 1].astype(np.float32) * scale[0, 1].astype(np.float32)[:, None]
    )


def test_an_altered_scale_is_refused(with_tokens: Any) -> None:
    write(with_tokens)
    (path,) = (with_tokens.folder / "a.zarr/teachers/means/visual_token_scale").glob("c.1.*")
    data = bytearray(path.read_bytes())
    data[1] ^= 1
    path.write_bytes(bytes(data))
    store = TeacherStore.open(with_tokens.folder / "a.zarr")
    store.read_tokens([0], [0])
    with pytest.raises(CorruptError, match=r"visual_token_scale/c\.1"):
        store.read_tokens([2], [0])


def test_tokens_beyond_what_int8_holds_stop_the_run(
    with_tokens: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tokens, "scale", 1e9)
    with pytest.raises(SchemaError, match="must be finite and at most 127 times 65504"):
        write(with_tokens)


@pytest.mark.parametrize("lost", ["lengths", "token_error"])
def test_a_manifest_is_rebuilt_unless_the_measured_error_is_lost(
    with_tokens: Any, lost: str
) -> None:
    writer = with_tokens.writer("a.zarr", optional=OPTIONAL)
    list(with_tokens.worker(writer).write_shards(range(writer.num_shards)))
    writer.finish()
    before = with_tokens.digests("a.zarr")
    (path,) = (with_tokens.folder / f"a.zarr/teachers/means/manifest/{lost}").glob("c.*")
    path.unlink()
    if lost == "token_error":
        with pytest.raises(CorruptError, match="token_error of the manifest cannot be rebuilt"):
            repair_manifest(writer.layout, writer.entry, writer.run_id)
    else:
        assert repair_manifest(writer.layout, writer.entry, writer.run_id)
        assert with_tokens.digests("a.zarr") == before
