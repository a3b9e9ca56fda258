"""Laws of the crop stream: in order, each image once, never far ahead, and no error is lost."""

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import ImageError
from pipeline.frames.crop_stream import (
    ImageCrops,
    ImageRequest,
    batched_crops,
    requests_by_image,
    stream_crops,
)
from pipeline.frames.crops import warp_crop

FOLDER = Path("/images")
IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def picture(path: Path) -> NDArray[np.uint8]:
    """Return an image that its name decides."""
    number = int(path.stem.split(".")[0])
    return np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)


def requests_of(num_images: int, affines: NDArray[np.float64] | None = None) -> list[ImageRequest]:
    views = IDENTITY[None] if affines is None else affines
    return [
        ImageRequest(FOLDER / f"{image}.jpg", np.array([image]), views)
        for image in range(num_images)
    ]


def test_views_are_grouped_by_image_in_the_order_of_the_images(make_people: Any) -> None:
    people = make_people([0, 0, 1, 2, 2], num_images=4)
    image_index = np.array([2, 0, 2, 1, 0])
    affines = np.arange(5.0)[:, None, None, None] * np.ones((5, 3, 2, 3))
    requests = requests_by_image(people, FOLDER, image_index, affines)
    assert [request.path for request in requests] == [FOLDER / f"{i}.jpg" for i in range(3)]
    assert [request.rows.tolist() for request in requests] == [[1, 4], [3], [0, 2]]
    for request in requests:
        np.testing.assert_array_equal(request.image_to_crop[:, 0, 0, 0], request.rows)


def test_rows_may_have_names_of_their_own(make_people: Any) -> None:
    people = make_people([0, 0, 1], num_images=3)
    names, affines = np.array([70, 80, 90]), np.zeros((3, 2, 3))
    requests = requests_by_image(people, FOLDER, np.array([1, 0, 1]), affines, names)
    assert [request.rows.tolist() for request in requests] == [[80], [70, 90]]


def test_no_rows_make_no_requests_and_no_crops(make_people: Any) -> None:
    none = requests_by_image(make_people(), FOLDER, np.zeros(0, np.int64), np.zeros((0, 2, 3)))
    assert none == []
    assert list(stream_crops(none, (8, 6), picture)) == []


def test_crops_are_those_of_the_warp_in_the_order_of_the_requests() -> None:
    """Although the first images take longest to decode."""

    def slow(path: Path) -> NDArray[np.uint8]:
        time.sleep(0.01 if int(path.stem) < 3 else 0)
        return picture(path)

    affines = np.array([[IDENTITY, [[1.2, 0.1, 3.0], [0.0, 1.3, -2.0]]]])
    requests = requests_of(20, affines)
    found = list(stream_crops(requests, (16, 12), slow, num_threads=4))
    assert [image.request.rows[0] for image in found] == list(range(20))
    for image in found:
        assert image.crops is not None
        assert image.crops.shape == (1, 2, 16, 12, 3)
        for view in range(2):
            expected = warp_crop(picture(image.request.path), affines[0, view], (16, 12))
            np.testing.assert_array_equal(image.crops[0, view], expected)


def test_each_image_is_decoded_once(make_people: Any) -> None:
    decoded: Counter[str] = Counter()

    def counted(path: Path) -> NDArray[np.uint8]:
        decoded[path.name] += 1
        return picture(path)

    people = make_people([0, 0, 1], num_images=3)
    affines = np.broadcast_to(IDENTITY, (6, 3, 2, 3))
    requests = requests_by_image(people, FOLDER, np.array([0, 1, 2, 0, 1, 0]), affines)
    views = [image.crops.shape[:2] for image in stream_crops(requests, (8, 6), counted) if image.crops is not None]  # fmt: skip  # noqa: E501
    assert decoded == {"0.jpg": 1, "1.jpg": 1, "2.jpg": 1}
    assert views == [(3, 3), (2, 3), (1, 3)]


@pytest.mark.parametrize("num_threads", [1, 3])
def test_at_most_four_images_a_thread_wait_for_the_consumer(num_threads: int) -> None:
    started, lock = 0, threading.Lock()

    def counted(path: Path) -> NDArray[np.uint8]:
        nonlocal started
        with lock:
            started += 1
        return picture(path)

    stream = stream_crops(requests_of(60), (8, 6), counted, num_threads)
    for consumed in range(1, 61):
        next(stream)
        time.sleep(0.002)
        assert started <= consumed + 4 * num_threads
    assert started == 60


def test_a_consumer_that_leaves_stops_the_decoding() -> None:
    started = 0

    def counted(path: Path) -> NDArray[np.uint8]:
        nonlocal started
        started += 1
        time.sleep(0.05)
        return picture(path)

    stream = stream_crops(requests_of(1000), (8, 6), counted, num_threads=1)
    next(stream)
    stream.close()
    assert started <= 3  # the one consumed, one at work, and perhaps its successor
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_an_image_that_cannot_be_read_is_yielded_with_its_error_among_the_others() -> None:
    def torn(path: Path) -> NDArray[np.uint8]:
        if path.stem == "2":
            raise ImageError("image 2 is torn")
        return picture(path)

    found = list(stream_crops(requests_of(5), (8, 6), torn))
    assert [image.crops is None for image in found] == [False, False, True, False, False]
    assert [str(image.error) for image in found if image.error] == ["image 2 is torn"]


def test_any_other_fault_of_the_decoder_is_raised() -> None:
    def broken(path: Path) -> NDArray[np.uint8]:
        raise MemoryError(path.name)

    with pytest.raises(MemoryError, match=r"0\.jpg"):
        list(stream_crops(requests_of(3), (8, 6), broken))


def image_of(rows: list[int], shape: tuple[int, ...] | None) -> ImageCrops:
    """Return an image whose crops have their row's and view's number as pixels; None: no crops."""
    request = ImageRequest(FOLDER / f"{rows[0]}.jpg", np.array(rows), IDENTITY[None])
    if shape is None:
        return ImageCrops(request, None, ImageError(f"image {rows[0]} is torn"))
    crops = np.zeros((len(rows), *shape, 4, 3, 3), np.uint8)
    for place in np.ndindex(crops.shape[:-3]):
        crops[place] = 10 * rows[place[0]] + sum(place[1:])
    return ImageCrops(request, crops)


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_batches_have_one_size_across_images_and_name_row_and_view(shape: tuple[int, ...]) -> None:
    images = [image_of([0, 1], shape), image_of([4], shape), image_of([2, 3, 5, 6], shape)]
    batches = list(batched_crops(images, 3))
    num_crops = 7 * (shape[0] if shape else 1)
    assert [len(batch.rows) for batch in batches] == [3] * (num_crops // 3) + [1] * (num_crops % 3)
    rows = np.concatenate([batch.rows for batch in batches])
    views = np.concatenate([batch.views for batch in batches])
    num_views = shape[0] if shape else 1
    assert rows.tolist() == np.repeat([0, 1, 4, 2, 3, 5, 6], num_views).tolist()
    assert views.tolist() == list(range(num_views)) * 7
    for batch in batches:
        assert batch.crops.shape[1:] == (4, 3, 3)
        assert (batch.crops[:, 0, 0, 0] == 10 * batch.rows + batch.views).all()


def test_a_batch_is_yielded_before_the_next_image_is_taken() -> None:
    images = iter([image_of([0, 1], ()), image_of([2], ())])
    assert next(batched_crops(images, 2)).rows.tolist() == [0, 1]
    assert next(images).request.rows.tolist() == [2]


def test_no_crops_make_no_batches() -> None:
    assert list(batched_crops([], 2)) == []


def test_an_unreadable_image_is_raised_or_handed_over() -> None:
    images = [image_of([0], ()), image_of([1, 2], None), image_of([3], ())]
    with pytest.raises(ImageError, match="image 1 is torn"):
        list(batched_crops(images, 2))
    unreadable: list[ImageCrops] = []
    (batch,) = batched_crops(images, 2, unreadable.append)
    assert batch.rows.tolist() == [0, 3]
    assert unreadable == [images[1]]
