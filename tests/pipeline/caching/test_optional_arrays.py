"""Crops and tokens of stage one: the teacher predicts the stored crops, and tokens are bounded."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.caching.inputs import optional_arrays
from pipeline.caching.settings import TeacherInputs
from pipeline.coco.image_files import decode_image
from pipeline.errors import TeacherError
from pipeline.frames.crops import jpeg_round_trip, warp_crop
from pipeline.settings import TeacherSettings
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teachers import Teacher
from pipeline.teachers.network import Prediction
from store_schemas.errors import SchemaError
from store_schemas.formats import OptionalArrays, TokenFormat, crop_format
from store_schemas.heatmap_codec import quantise_heatmaps
from tests.pipeline.caching.conftest import BATCH, NUM_KEYPOINTS, NUM_VIEWS, SIZE_HW, Means

CROPS = crop_format(SIZE_HW, 40, "4:2:0")
"""So low a quality that the decoded crop is far from the other."""
DIM, GRID_HW = 7, (2, 3)


class Tokens(Means):
    """The same means, with tokens of the crops' colours."""

    token_shape = (DIM, GRID_HW)
    scale = 1.0

    def forward(self, images: NDArray[np.float32], with_tokens: bool = False) -> Prediction:
        if not with_tokens:
            return super().forward(images)
        colours = images.mean(axis=(2, 3))  # (B, 3)
        left = images[..., : SIZE_HW[1] // 2].mean(axis=(2, 3))
        mix = np.random.default_rng(0).normal(0, self.scale, (6, 11, DIM))
        tokens = np.einsum("bc,cpd->bpd", np.concatenate([colours, left], axis=1), mix)
        tokens = tokens.astype(np.float32)
        kinds = {"keypoint": tokens[:, :NUM_KEYPOINTS], "visual": tokens[:, NUM_KEYPOINTS:]}
        return Prediction(super().forward(images).heatmaps, kinds)


def write(caching: Any, optional: OptionalArrays, name: str = "a.zarr", **how: Any) -> TeacherStore:
    writer = caching.writer(name, optional=optional)
    list(caching.worker(writer, **how).write_shards(range(writer.num_shards)))
    writer.finish()
    return TeacherStore.open(caching.folder / name)


def all_views(caching: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    places = np.indices((caching.people.num_instances, NUM_VIEWS)).reshape(2, -1)
    return places[0], places[1]


def test_the_teacher_predicts_the_decoded_stored_crop(caching: Any) -> None:
    store = write(caching, OptionalArrays(CROPS))
    rows, views = all_views(caching)
    crops, stored = store.read_crops(rows, views), store.read(rows, views)
    predicted = caching.teacher.predict(crops, caching.people.skeleton.flip_indices).heatmaps
    heatmaps, scale = quantise_heatmaps(predicted, store.threshold)
    np.testing.assert_array_equal(stored.heatmaps, heatmaps, strict=True)
    np.testing.assert_array_equal(stored.scale, scale, strict=True)
    people = caching.people
    for crop, row, view in zip(crops, rows.tolist(), views.tolist(), strict=True):
        image = decode_image(caching.path(people.image_name[people.image_index[row]]))
        lossless = warp_crop(image, store.views.image_to_crop[row, view], SIZE_HW)
        np.testing.assert_array_equal(crop, jpeg_round_trip(lossless, CROPS)[0], strict=True)
        assert (crop != lossless).any()


def test_the_number_of_threads_changes_no_byte_of_crops_and_tokens(caching: Any) -> None:
    caching.teacher = Teacher(Tokens(), TeacherSettings(batch_size=BATCH))
    optional = OptionalArrays(CROPS, TokenFormat(("keypoint", "visual"), DIM, GRID_HW))
    write(caching, optional, num_threads=1)
    write(caching, optional, "b.zarr", num_threads=4)
    assert caching.digests("a.zarr") == caching.digests("b.zarr")


@pytest.mark.parametrize("kinds", [("keypoint",), ("visual",), ("keypoint", "visual")])
def test_tokens_are_those_of_the_unflipped_pass_rounded_to_float16(
    caching: Any, kinds: tuple[str, ...]
) -> None:
    caching.teacher = Teacher(Tokens(), TeacherSettings(batch_size=BATCH, flip_test=True))
    optional = OptionalArrays(CROPS, TokenFormat(kinds, DIM, GRID_HW))
    store = write(caching, optional)
    rows, views = all_views(caching)
    crops, found = store.read_crops(rows, views), store.read_tokens(rows, views)
    live, mirrored = (
        Tokens().forward(caching.teacher.preprocess(each), with_tokens=True).tokens
        for each in (crops, crops[:, :, ::-1])
    )
    assert live is not None
    assert mirrored is not None
    assert tuple(found) == kinds
    for kind in kinds:
        assert found[kind].dtype == np.float16
        limit = np.spacing(np.abs(found[kind])).astype(np.float32) / 2  # half a last place
        assert (np.abs(found[kind].astype(np.float32) - live[kind]) <= limit * 1.01 + 1e-6).all()
        assert np.abs(live[kind] - mirrored[kind]).max() > 0.01


def test_tokens_that_float16_cannot_hold_stop_the_run(
    caching: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tokens, "scale", 1e7)
    caching.teacher = Teacher(Tokens(), TeacherSettings(batch_size=BATCH))
    with pytest.raises(SchemaError, match="must be finite in float16, whose largest number"):
        write(caching, OptionalArrays(None, TokenFormat(("visual",), DIM, GRID_HW)))


def inputs(**changes: Any) -> TeacherInputs:
    return TeacherInputs.model_validate(
        {"annotations": "a", "images": "i", "teacher": "t", **changes}
    )


def test_the_settings_name_what_is_stored() -> None:
    teacher = Teacher(Tokens(), TeacherSettings(batch_size=BATCH))
    assert optional_arrays(inputs(), teacher) == OptionalArrays()
    both = inputs(crops=True, crop_quality=80, tokens="both")
    assert optional_arrays(both, teacher) == OptionalArrays(
        crop_format(SIZE_HW, 80, "4:2:0"), TokenFormat(("keypoint", "visual"), DIM, GRID_HW, "int8")
    )
    one = optional_arrays(inputs(tokens="visual", token_format="float16"), teacher).tokens
    assert one == TokenFormat(("visual",), DIM, GRID_HW)


def test_a_format_of_tokens_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="token_format must be left out unless tokens are stored"):
        inputs(token_format="float16")


def test_tokens_of_a_teacher_without_any_are_refused(caching: Any) -> None:
    with pytest.raises(TeacherError, match="tokens must come from a teacher of `distil train-tea"):
        optional_arrays(inputs(tokens="both"), caching.teacher)


def test_a_quality_without_crops_is_refused() -> None:
    with pytest.raises(ValueError, match="must be left out unless crops are stored; add crops"):
        inputs(crop_quality=80)
