"""A few crops of people, from their images or from a teacher store."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People, people_of_rows, spread_rows
from pipeline.errors import ConfigError
from pipeline.frames.crop_stream import batched_crops, requests_by_image, stream_crops
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import SizeHW, box_to_crop, resize_affine
from pipeline.teacher_store.reader import TeacherStore
from store_schemas.teacher_store import Status

PLAIN_VIEW = 0


def crops_of_people(
    people: People, image_folder: Path, size_hw: SizeHW, padding: float, num_people: int
) -> NDArray[np.uint8]:
    """Cut the crops of some people, spread evenly over all, from their images.

    Returns (B, H, W, 3) uint8, RGB, by image.

    Raises:
        ImageError: an image cannot be decoded whole.
    """
    chosen = people_of_rows(people, spread_rows(people.num_instances, num_people))
    image_to_crop = box_to_crop(chosen.bbox_xywh, size_hw, padding)
    requests = requests_by_image(chosen, image_folder, chosen.image_index, image_to_crop)
    batches = batched_crops(stream_crops(requests, size_hw), num_people)
    return np.concatenate([batch.crops for batch in batches])


def crops_of_store(
    store: TeacherStore,
    image_folder: Path | None,
    size_hw: SizeHW,
    padding: float,
    num_people: int,
) -> NDArray[np.uint8]:
    """Return crops of some people of a store: the stored ones, resized, or else from the images.

    Raises:
        ConfigError: the store has no crops, and there is no image folder.
        ImageError: an image cannot be decoded whole.
        CorruptError: a stored crop is missing, torn or altered.
    """
    if store.optional.crops is None:
        if image_folder is None:
            raise ConfigError(
                f"{store.path} was written without crops, so its images are needed; give --images"
            )
        return crops_of_people(store.people, image_folder, size_hw, padding, num_people)
    there = np.flatnonzero(store.status[:, PLAIN_VIEW] == Status.OK)
    rows = there[spread_rows(len(there), num_people)]
    stored = store.read_crops(rows, np.full(len(rows), PLAIN_VIEW))
    stored_to_input = resize_affine(store.input_size_hw, size_hw)
    return np.stack([warp_crop(crop, stored_to_input, size_hw) for crop in stored])
