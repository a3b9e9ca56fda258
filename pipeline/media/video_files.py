"""Frames of video files and webcams, upright, and video files written frame by frame (PyAV)."""

import importlib
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ImageError
from pipeline.storage.files import temporary_of

_TICKS = 90_000
"""Ticks of a second: the time base of MPEG, which the usual frame rates divide."""


@dataclass(frozen=True)
class Frame:
    """One frame of a video."""

    index: int  # counted from 0
    seconds: float  # since the video's first frame
    image: NDArray[np.uint8]  # (H, W, 3), RGB, upright


def count_frames(path: Path) -> int:
    """Return the number of frames that a video's header states or implies; 0 if it is unknown.

    Raises:
        ImageError: it is no video.
    """
    with _opened(path) as (container, stream):
        if stream.frames:
            return int(stream.frames)
        if container.duration is None or stream.average_rate is None:
            return 0
        return int(container.duration / 1_000_000 * stream.average_rate)


def read_frames(path: Path) -> Generator[Frame]:
    """Yield the frames of a video file, turned as its header says: phones film upright sideways.

    Raises:
        ImageError: it is no video, or a part of it is damaged; the frames before were yielded.
    """
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or 25)
        start: float | None = None
        for index, frame in enumerate(container.decode(stream)):
            seconds = index / rate if frame.time is None else float(frame.time)
            start = seconds if start is None else start
            quarter_turns = round(frame.rotation / 90)  # counter-clockwise, as np.rot90 turns
            image = np.rot90(frame.to_ndarray(format="rgb24"), quarter_turns)
            yield Frame(index, seconds - start, np.ascontiguousarray(image))


def read_webcam(index: int) -> Generator[Frame]:
    """Yield the frames of a webcam as they come, until the caller stops or it is unplugged.

    Raises:
        ImageError: there is no such webcam, or it gives no picture.
    """
    camera = cv2.VideoCapture(index)
    try:
        number, started = 0, time.monotonic()
        while True:
            is_read, picture = camera.read()
            if not is_read:
                if number:
                    return
                raise ImageError(
                    f"webcam {index} gives no picture; expected the index of a camera that no "
                    "other program uses, such as 0; check that it is plugged in"
                )
            image = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
            yield Frame(number, time.monotonic() - started, image)
            number += 1
    finally:
        camera.release()


class VideoWriter:
    """Writes an H.264 video that appears whole, under its name, when the writer is closed.

    Frames keep their times, so a film of varying frame rate keeps its speed. A frame of odd width
    or height loses its last column or row, which the format cannot hold.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = temporary_of(path)
        self._av = importlib.import_module("av")
        self._container = self._av.open(str(self._temporary), "w", format="mp4")
        self._stream: Any = None
        self._last_tick = -1

    def write(self, image: NDArray[np.uint8], seconds: float) -> None:
        """Append a frame, (H, W, 3) uint8 RGB, of the size of the first."""
        height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=Fraction(25))
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv420p"
            self._stream.options = {"crf": "20", "preset": "veryfast"}
            self._stream.codec_context.time_base = Fraction(1, _TICKS)
        pixels = np.ascontiguousarray(image[:height, :width])
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        self._last_tick = max(round(seconds * _TICKS), self._last_tick + 1)
        frame.pts, frame.time_base = self._last_tick, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Publish what was written; nothing if no frame was, or an error ended it."""
        has_frames = self._stream is not None and kind is None
        if has_frames:
            self._container.mux(self._stream.encode(None))
        with suppress(self._av.error.FFmpegError):  # no stream, no file
            self._container.close()
        if has_frames:
            os.replace(self._temporary, self._path)
        else:
            self._temporary.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a video file and its first video stream; errors of the library become ImageErrors."""
    av = importlib.import_module("av")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ImageError(f"{path} holds no video, only sound or text; leave it out")
            yield container, container.streams.video[0]
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(
            f"video {str(path)!r} cannot be read: {reason}; replace the file, or leave it out"
        ) from error
