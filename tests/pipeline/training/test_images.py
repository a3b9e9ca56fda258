"""Laws of binding pixels to digests: what was checked is what is decoded, and a change is seen."""

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.coco.image_files import ImageBytes, read_image_bytes
from pipeline.coco.people import People
from pipeline.errors import ImageError
from pipeline.training import images as images_module
from pipeline.training.images import TrainingImages

CHANGED = (
    r"has changed since the teacher store was written: expected sha256 [0-9a-f]{12}, "
    r"got [0-9a-f]{12}; give the original image"
)
NUM_BYTES = 30 * 40 * 3


def write(path: Path, level: int) -> None:
    """Write a grey picture; every level takes the same number of bytes (BMP, whatever the name)."""
    with path.open("wb") as file:  # the same inode
        Image.new("RGB", (40, 30), (level, level, level)).save(file, "BMP")


def level_of(image: NDArray[np.uint8]) -> int:
    return int(image[0, 0, 0])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "0.jpg", 10)
    return tmp_path / "0.jpg"


@pytest.fixture
def open_images(make_people: Callable[..., People], path: Path) -> Callable[..., TrainingImages]:
    people = dataclasses.replace(make_people(), image_size_hw=np.tile([30, 40], (3, 1)))
    digest = hashlib.sha256(path.read_bytes()).digest()
    sha256 = np.tile(np.frombuffer(digest, np.uint8), (3, 1))

    def make(**settings: object) -> TrainingImages:
        return TrainingImages(people, path.parent, sha256, **settings)  # type: ignore[arg-type]

    return make


OpenImages = Callable[..., TrainingImages]


def alter_unseen(path: Path) -> None:
    """Write other pixels of the same length into the same inode, and set the clock back."""
    before = path.stat()
    write(path, 200)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (before.st_ino, before.st_size, before.st_mtime_ns) == (
        *(after.st_ino, after.st_size, after.st_mtime_ns),
    )


def test_a_checked_image_is_known_by_inode_size_and_time(
    open_images: OpenImages, path: Path
) -> None:
    """So its bytes are digested once; see what paranoia is for below."""
    images = open_images()
    assert level_of(images.read(0)) == 10
    alter_unseen(path)
    assert level_of(images.read(0)) == 200


def test_paranoia_digests_the_bytes_of_every_decode(open_images: OpenImages, path: Path) -> None:
    images = open_images(paranoid=True)
    assert level_of(images.read(0)) == 10
    alter_unseen(path)
    with pytest.raises(ImageError, match=CHANGED):
        images.read(0)


def test_an_image_that_changes_in_place_is_noticed(open_images: OpenImages, path: Path) -> None:
    images = open_images()
    images.read(0)
    later = path.stat().st_mtime_ns + 1
    write(path, 200)
    os.utime(path, ns=(later, later))
    with pytest.raises(ImageError, match=CHANGED):
        images.read(0)


def test_an_image_in_whose_place_another_file_is_put_is_noticed(
    open_images: OpenImages, path: Path
) -> None:
    """Although length and time are those of the file before."""
    images = open_images()
    images.read(0)
    time = path.stat().st_mtime_ns
    write(path.with_name("new"), 200)
    os.utime(path.with_name("new"), ns=(time, time))
    path.with_name("new").rename(path)
    with pytest.raises(ImageError, match=CHANGED):
        images.read(0)


def test_a_touched_image_is_digested_again_and_trusted_again(
    open_images: OpenImages, path: Path
) -> None:
    images = open_images()
    images.read(0)
    os.utime(path, ns=(1, 1))
    images.read(0)
    alter_unseen(path)
    assert level_of(images.read(0)) == 200


def test_the_bytes_that_were_digested_are_the_bytes_that_are_decoded(
    open_images: OpenImages, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the file changes in between: it is read once."""

    def read_and_change(file: Path) -> ImageBytes:
        content = read_image_bytes(file)
        write(file, 200)
        return content

    monkeypatch.setattr(images_module, "read_image_bytes", read_and_change)
    assert level_of(open_images().read(0)) == 10


def test_a_file_that_changed_while_it_was_read_is_not_trusted_later(
    open_images: OpenImages, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        images_module, "read_image_bytes", lambda p: read_image_bytes(p)._replace(stamp=None)
    )
    images = open_images()
    images.read(0)
    alter_unseen(path)
    with pytest.raises(ImageError, match=CHANGED):
        images.read(0)


def test_an_altered_image_that_no_longer_decodes_is_said_to_have_changed(
    open_images: OpenImages, path: Path
) -> None:
    path.write_bytes(b"no image")
    with pytest.raises(ImageError, match=CHANGED):
        open_images().read(0)


def test_a_cached_image_is_decoded_once_and_the_cache_is_bounded(open_images: OpenImages) -> None:
    cached = open_images(cache_bytes=NUM_BYTES)
    assert cached.read(0) is cached.read(0)
    bounded = open_images(cache_bytes=NUM_BYTES - 1)
    assert bounded.read(0) is not bounded.read(0)


def test_an_image_of_another_size_than_annotated_is_refused(
    make_people: Callable[..., People], path: Path
) -> None:
    with pytest.raises(
        ImageError, match=r"0\.jpg' must have 2000 x 2000 .* as annotated, got 30 x 40; give"
    ):
        TrainingImages(make_people(), path.parent).read(0)
