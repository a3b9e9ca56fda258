"""Videos: what is written is read again, at its time, upright; damage is named."""

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import ImageError
from pipeline.media.video_files import VideoWriter, count_frames, read_frames

pytest.importorskip("av", reason="PyAV (the extra video) is not installed: videos are not tested")

TIMES = (0.0, 0.04, 0.08, 0.2, 0.24)
"""Not evenly spaced: a telephone films at a varying rate."""


def halves(level: int, height: int = 64, width: int = 96) -> NDArray[np.uint8]:
    """A picture whose left half is red and whose right half is grey of some level."""
    image = np.full((height, width, 3), level, np.uint8)
    image[:, : width // 2] = (220, 20, 20)
    return image


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    with VideoWriter(path) as writer:
        for index, seconds in enumerate(TIMES):
            writer.write(halves(40 * index), seconds)
    return path


def test_frames_come_back_in_order_at_their_times_in_their_colours(video: Path) -> None:
    frames = list(read_frames(video))
    assert [frame.index for frame in frames] == list(range(len(TIMES)))
    np.testing.assert_allclose([frame.seconds for frame in frames], TIMES, atol=1e-3)
    for index, frame in enumerate(frames):
        assert frame.image.shape == (64, 96, 3)
        difference = frame.image.astype(int) - halves(40 * index)
        assert np.abs(difference[:, 56:]).max() < 12
        assert np.abs(difference[:, :40]).max() < 30  # colour is stored at half the density
    assert count_frames(video) == len(TIMES)


def test_an_odd_size_loses_its_last_column_and_row(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "odd.mp4") as writer:
        writer.write(halves(100, 65, 97), 0.0)
    (frame,) = read_frames(tmp_path / "odd.mp4")
    assert frame.image.shape == (64, 96, 3)


def test_a_video_that_was_filmed_upright_is_turned(video: Path) -> None:
    """The matrix (ISO 14496-12, 8.3.2) that turns a picture clockwise brings left to the top."""
    content = bytearray(video.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    one = 1 << 16
    struct.pack_into(">9i", content, place, 0, one, 0, -one, 0, 0, 64 * one, 0, 1 << 30)
    video.write_bytes(content)
    image = next(iter(read_frames(video))).image
    assert image.shape == (96, 64, 3)
    assert image[:40, :, 0].min() > 150
    assert image[56:, :, 0].max() < 60


def test_a_damaged_video_is_named(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"no video at all" * 100)
    with pytest.raises(ImageError, match=r"video '.*clip\.mp4' cannot be read"):
        next(iter(read_frames(path)))


def test_an_error_while_writing_leaves_no_file(tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with VideoWriter(tmp_path / "clip.mp4") as writer:
            writer.write(halves(0), 0.0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    with VideoWriter(tmp_path / "empty.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []
