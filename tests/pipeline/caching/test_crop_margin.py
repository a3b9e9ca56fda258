"""Laws of crops with a margin: where they lie, what the teacher sees of them, what is refused."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.caching.inputs import optional_arrays
from pipeline.caching.settings import TeacherInputs
from pipeline.coco.image_files import decode_image
from pipeline.teacher_store.reader import TeacherStore
from store_schemas.errors import SchemaError
from store_schemas.formats import OptionalArrays, crop_format, crop_margin_hw
from store_schemas.heatmap_codec import quantise_heatmaps
from tests.pipeline.caching.conftest import NUM_VIEWS, SIZE_HW

MARGIN_HW = (9, 5)
CROPS = crop_format(SIZE_HW, 40, "4:2:0", MARGIN_HW)


def write(caching: Any, optional: OptionalArrays, name: str = "a.zarr") -> TeacherStore:
    writer = caching.writer(name, optional=optional)
    list(caching.worker(writer).write_shards(range(writer.num_shards)))
    writer.finish()
    return TeacherStore.open(caching.folder / name)


def all_views(caching: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    places = np.indices((caching.people.num_instances, NUM_VIEWS)).reshape(2, -1)
    return places[0], places[1]


def decoded_wide_crop(image: NDArray[np.uint8], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Cut 50x34 pixels whose pixel (5, 9) is the crop's (0, 0), and take them through a JPEG."""
    shifted = affine + np.array([[0, 0, 5], [0, 0, 9]])
    wide = cv2.warpAffine(image, shifted, (34, 50), flags=cv2.INTER_LINEAR)
    settings = (cv2.IMWRITE_JPEG_QUALITY, 40)
    sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)
    file = cv2.imencode(".jpg", wide[..., ::-1], (*settings, *sampling))[1]
    decoded = cv2.imdecode(file, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(decoded[..., ::-1], np.uint8)


def test_a_wide_crop_is_the_photograph_around_the_crop_and_the_teacher_sees_its_middle(
    caching: Any,
) -> None:
    store = write(caching, OptionalArrays(CROPS))
    rows, views = all_views(caching)
    wide, crops = store.read_wide_crops(rows, views), store.read_crops(rows, views)
    assert wide.crops.shape == (len(rows), 50, 34, 3)
    assert store.crop_margin_hw == (9, 5)
    people = caching.people
    assert store.views.is_mirrored.any()
    for place, (row, view) in enumerate(zip(rows.tolist(), views.tolist(), strict=True)):
        image = decode_image(caching.path(people.image_name[people.image_index[row]]))
        affine = store.views.image_to_crop[row, view]
        expected = decoded_wide_crop(image, affine)
        np.testing.assert_array_equal(wide.crops[place], expected, strict=True)
        shifted = affine + np.array([[0, 0, 5], [0, 0, 9]])
        np.testing.assert_allclose(wide.image_to_wide_crop[place], shifted, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(crops, wide.crops[:, 9:41, 5:29], strict=True)
    predicted = caching.teacher.predict(crops, people.skeleton.flip_indices).heatmaps
    stored = store.read(rows, views)
    heatmaps, scale = quantise_heatmaps(predicted, store.threshold)
    np.testing.assert_array_equal(stored.heatmaps, heatmaps, strict=True)
    np.testing.assert_array_equal(stored.scale, scale, strict=True)


def test_without_a_margin_the_wide_crop_is_the_crop_and_the_identity_has_no_such_field(
    caching: Any,
) -> None:
    plain = crop_format(SIZE_HW, 40, "4:2:0")
    assert plain == crop_format(SIZE_HW, 40, "4:2:0", (0, 0))
    assert plain.to_json() == {"quality": 40, "subsampling": "4:2:0", "length": 4096}
    store = write(caching, OptionalArrays(plain))
    wide = store.read_wide_crops([3], [1])
    np.testing.assert_array_equal(wide.crops, store.read_crops([3], [1]), strict=True)
    np.testing.assert_array_equal(wide.image_to_wide_crop[0], store.views.image_to_crop[3, 1])
    assert store.crop_margin_hw == (0, 0)


def test_a_margin_is_read_back_from_the_identity() -> None:
    optional = OptionalArrays(CROPS)
    section = optional.to_json()["crops"]
    # 50x34 padded to 64x48
    assert section == {
        **{"quality": 40, "subsampling": "4:2:0", "length": 3 * 64 * 48 + 1024},
        "margin_hw": [9, 5],
    }
    assert OptionalArrays.from_json(optional.to_json(), SIZE_HW) == optional


@pytest.mark.parametrize("margin_hw", [[0, 5], [9], 9, [0, 0]])
def test_a_margin_out_of_bounds_is_refused(margin_hw: object) -> None:
    section = {**CROPS.to_json(), "margin_hw": margin_hw}
    with pytest.raises(SchemaError, match=r"'margin_hw' must be \[height, width\]"):
        OptionalArrays.from_json({"crops": section}, SIZE_HW)


def test_a_margin_with_the_length_of_another_is_refused() -> None:
    section = replace(CROPS, length=4096).to_json()
    with pytest.raises(SchemaError, match=r"identity\.crops must be"):
        OptionalArrays.from_json({"crops": section}, SIZE_HW)


def test_a_margin_is_a_fraction_of_the_crop_on_each_side_and_never_lost() -> None:
    assert crop_margin_hw((256, 192), 0.5) == (128, 96)
    assert crop_margin_hw((256, 192), 0.0) == (0, 0)
    assert crop_margin_hw((256, 192), 1e-9) == (1, 1)


def test_a_crop_of_too_many_pixels_is_refused() -> None:
    assert crop_format((1024, 768), 90, "4:2:0", (512, 384)).stored_size_hw((1024, 768))[0] == 2048
    with pytest.raises(SchemaError, match=r"at most 2048 pixels a side, got 2050x1536; choose a"):
        crop_format((1024, 768), 90, "4:2:0", (513, 384))


def inputs(**changes: Any) -> TeacherInputs:
    return TeacherInputs.model_validate(
        {"annotations": "a", "images": "i", "teacher": "t", **changes}
    )


@pytest.mark.parametrize(
    ("given", "margin_hw"),
    [
        ({}, (0, 0)),
        ({"views": 0}, (16, 12)),
        ({"views": 0, "crop_margin": 0}, (0, 0)),
        ({"crop_margin": 0.25}, (8, 6)),
    ],
)
def test_plain_crops_alone_get_half_a_crop_on_each_side_unless_told_otherwise(
    caching: Any, given: dict[str, object], margin_hw: tuple[int, int]
) -> None:
    crops = optional_arrays(inputs(crops=True, **given), caching.teacher).crops
    assert crops is not None
    assert crops.margin_hw == margin_hw


def test_a_margin_without_crops_is_refused() -> None:
    with pytest.raises(ValueError, match="crop_margin must be left out unless crops are stored"):
        inputs(crop_margin=0.5)
    assert optional_arrays(inputs(views=0), None).crops is None  # type: ignore[arg-type]


@pytest.mark.parametrize("margin", [-0.1, 2.1, float("nan")])
def test_a_margin_that_is_no_sensible_fraction_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="crop_margin"):
        inputs(crops=True, crop_margin=margin)
