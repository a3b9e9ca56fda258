"""Plan of a teacher store: its people and views as arrays and as sections of the identity.

``people_identity`` and ``views_identity`` hold the sha256 of every array, so that an altered box or
affine is refused by the name of its field. The images' digests are bound to each shard by its
receipt instead: an image that could not be read may be replaced while no shard was written of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import IgnoreRegions, People
from store_schemas.errors import SchemaError
from store_schemas.identity import array_sha256, as_json
from store_schemas.layout import IMAGE_SHA256
from store_schemas.names import pack_names, unpack_names
from store_schemas.stored_identity import PeopleIdentity, ViewsIdentity


@dataclass(frozen=True)
class ViewPlan:
    """Views of every person, drawn once and stored."""

    image_to_crop: NDArray[np.float64]  # (N, V, 2, 3), mirroring included; view 0 is plain
    is_mirrored: NDArray[np.bool_]  # (N, V), true where the determinant is negative
    input_size_hw: tuple[int, int]
    """Size of the crop that the affines lead to."""
    seed: int
    recipe: Mapping[str, Any]
    """Settings under which the views were drawn, JSON."""


def people_arrays(people: People, image_sha256: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Return the arrays of the group ``people`` by name.

    Args:
        image_sha256: (M, 32) uint8, digest of every image file.

    Raises:
        SchemaError: an unlabelled keypoint has a position, or a labelled one has none.
    """
    check_keypoints(people)
    ignored = people.ignored
    return {
        "instance_id": people.instance_id,
        "image_index": people.image_index,
        "bbox_xywh": people.bbox_xywh,
        "area": people.area,
        "keypoints": people.keypoints,
        "is_labelled": people.is_labelled,
        "image_id": people.image_id,
        "image_name": pack_names(people.image_name),
        "image_size_hw": people.image_size_hw,
        "image_sha256": image_sha256,
        "ignored_annotation_id": ignored.annotation_id,
        "ignored_image_index": ignored.image_index,
        "ignored_bbox_xywh": ignored.bbox_xywh,
        "ignored_area": ignored.area,
        "ignored_is_crowd": ignored.is_crowd,
        "ignored_num_keypoints": ignored.num_keypoints,
    }


def check_keypoints(people: People) -> None:
    """Refuse people whose keypoints have a position without a label, or a label without one.

    Raises:
        SchemaError: names the first such instance and keypoint.
    """
    # column by column: reducing over an axis of two is ten times slower
    x, y, visibility = (people.keypoints[..., column] for column in range(3))
    has_position = np.isfinite(x) & np.isfinite(y)
    wrong = np.where(people.is_labelled, ~has_position, ~(np.isnan(x) & np.isnan(y)))
    wrong |= (visibility != 0) & (visibility != 1) & (visibility != 2)
    if wrong.any():
        row, keypoint = np.argwhere(wrong)[0].tolist()
        raise SchemaError(
            f"keypoints must be (x, y, 1 or 2), or (NaN, NaN, 0) where unlabelled; instance {row}, "
            f"keypoint {keypoint} is {people.keypoints[row, keypoint].tolist()}"
        )


def views_arrays(views: ViewPlan) -> dict[str, NDArray[Any]]:
    """Return the arrays of the group ``views`` by name.

    Raises:
        SchemaError: ``is_mirrored`` contradicts the affines, or an affine is not invertible.
    """
    check_mirrored(views.image_to_crop, views.is_mirrored)
    return {"image_to_crop": views.image_to_crop, "is_mirrored": views.is_mirrored}


def check_mirrored(
    image_to_crop: NDArray[np.float64], is_mirrored: NDArray[np.bool_], first_row: int = 0
) -> None:
    """Refuse views whose ``is_mirrored`` is not the sign of their affine's determinant.

    Args:
        image_to_crop: (n, V, 2, 3), of the people from ``first_row`` on, as ``is_mirrored`` (n, V).

    Raises:
        SchemaError: names the first such instance and view.
    """
    determinant = determinant_of(image_to_crop)
    wrong = (determinant == 0) | ((determinant < 0) != is_mirrored) | ~np.isfinite(determinant)
    is_finite = np.isfinite(image_to_crop)
    if not is_finite.all():  # rare, and far slower by view
        wrong |= ~is_finite.all(axis=(-2, -1))
    if wrong.any():
        row, view = np.argwhere(wrong)[0].tolist()
        raise SchemaError(
            f"is_mirrored must be true exactly where image_to_crop mirrors, but instance "
            f"{first_row + row}, view {view} has determinant {determinant[row, view]} and "
            f"is_mirrored {bool(is_mirrored[row, view])}"
        )


def determinant_of(image_to_crop: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the determinants of affines (..., 2, 3); negative where they mirror."""
    a = image_to_crop
    with np.errstate(over="ignore", invalid="ignore"):  # altered bytes: the caller refuses them
        return np.asarray(a[..., 0, 0] * a[..., 1, 1] - a[..., 0, 1] * a[..., 1, 0])


def plan_arrays(
    people: People, image_sha256: NDArray[np.uint8], views: ViewPlan
) -> dict[str, NDArray[Any]]:
    """Return the arrays of people and views by their path in the store.

    Raises:
        SchemaError: people or views contradict themselves.
    """
    arrays = {f"people/{name}": a for name, a in people_arrays(people, image_sha256).items()}
    return arrays | {f"views/{name}": array for name, array in views_arrays(views).items()}


def people_identity(people: People) -> PeopleIdentity:
    """Return the identity's section ``people``: sizes, skeleton and the sha256 of its arrays."""
    arrays = people_arrays(people, np.zeros((len(people.image_id), 32), np.uint8))
    del arrays[IMAGE_SHA256]
    return PeopleIdentity(
        num_instances=people.num_instances,
        num_images=len(people.image_id),
        num_ignored=len(people.ignored.annotation_id),
        name_length=arrays["image_name"].shape[1],
        category_id=int(people.category_id),
        skeleton=people.skeleton,
        arrays={name: array_sha256(values) for name, values in arrays.items()},
    )


def views_identity(views: ViewPlan) -> ViewsIdentity:
    """Return the identity's section ``views``: how they were drawn, and every array's sha256."""
    height, width = views.input_size_hw
    return ViewsIdentity(
        num_views=views.image_to_crop.shape[1],
        input_size_hw=(height, width),
        seed=views.seed,
        recipe=as_json(views.recipe),
        arrays={name: array_sha256(values) for name, values in views_arrays(views).items()},
    )


def people_of(section: PeopleIdentity, arrays: dict[str, NDArray[Any]]) -> People:
    """Return the people whose arrays ``people_arrays`` made.

    Raises:
        SchemaError: the arrays contradict each other.
    """
    num_images = len(arrays["image_id"])
    for name in ("image_index", "ignored_image_index"):
        index = arrays[name]
        if index.size and (index.min() < 0 or index.max() >= num_images):
            raise SchemaError(f"people/{name} must be in 0..{num_images - 1}")
    ignored = {name: arrays[f"ignored_{name}"] for name in IgnoreRegions.__dataclass_fields__}
    people = People(
        skeleton=section.skeleton,
        category_id=section.category_id,
        image_name=unpack_names(arrays["image_name"]),
        ignored=IgnoreRegions(**ignored),
        **{name: arrays[name] for name in _ARRAYS_OF_PEOPLE},
    )
    check_keypoints(people)
    if (people.is_labelled != arrays["is_labelled"]).any():
        raise SchemaError("people/is_labelled must be true exactly where the visibility is not 0")
    return people


_ARRAYS_OF_PEOPLE = (
    "image_id",
    "image_size_hw",
    "instance_id",
    "image_index",
    "bbox_xywh",
    "area",
    "keypoints",
)
