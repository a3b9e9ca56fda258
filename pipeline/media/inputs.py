"""What there is to predict: photographs, videos and webcams, from the names that a user gives.

Loads nothing outside the standard library: a wrong name is refused before torch is imported.
"""

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.wording import counted

PHOTOGRAPH_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
)
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})


@dataclass(frozen=True)
class NamedFile:
    """A file, and the name by which the output calls it."""

    path: Path
    name: str
    """Relative to the folder that was given; of a file that was given, its own name."""


@dataclass(frozen=True)
class Inputs:
    """All inputs, in the order given; those of a folder by name."""

    photographs: tuple[NamedFile, ...]
    videos: tuple[NamedFile, ...]
    webcams: tuple[int, ...]
    notes: tuple[str, ...]
    """What of the folders is neither a photograph nor a video, a sentence each."""

    @property
    def has_motion(self) -> bool:
        return bool(self.videos or self.webcams)


def find_inputs(names: Iterable[str]) -> Inputs:
    """Find photographs, videos and webcams.

    names: of files, of folders, which are searched with the folders below them, or the index of a
        webcam. A file that is given is a photograph unless its suffix is a video's; of a folder
        only files of known suffixes are taken.

    Raises:
        ConfigError: a name is no file, no folder and no index, or there is nothing to predict.
    """
    found: list[NamedFile] = []
    webcams: list[int] = []
    notes: list[str] = []
    missing: list[str] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            known = [file for file in files if _is_video(file) or _is_photograph(file)]
            found += [NamedFile(file, file.relative_to(path).as_posix()) for file in known]
            if len(files) > len(known):
                others = counted(len(files) - len(known), "file")
                notes.append(f"left out {others} of {path}, neither photograph nor video by suffix")
        elif path.exists():
            found.append(NamedFile(path, path.name))
        elif name.isdecimal():
            webcams.append(int(name))
        else:
            missing.append(name)
    if missing:
        raise ConfigError(
            f"{', '.join(missing)}: no such file; expected photographs, videos, folders of them, "
            "or the index of a webcam, such as 0; check the path"
        )
    videos = tuple(file for file in found if _is_video(file.path))
    inputs = Inputs(
        tuple(file for file in found if not _is_video(file.path)),
        videos,
        tuple(webcams),
        tuple(notes),
    )
    if not (found or webcams):
        raise ConfigError(
            "there is nothing to predict: no photograph and no video in what was given"
            f"{''.join(f'; {note}' for note in notes)}; give a file or a folder that holds one"
        )
    return inputs


def require_video_support(inputs: Inputs) -> None:
    """Raise ConfigError if there are videos, and the library that reads and writes them is not."""
    if inputs.has_motion and importlib.util.find_spec("av") is None:
        first = inputs.videos[0].path if inputs.videos else f"webcam {inputs.webcams[0]}"
        raise ConfigError(
            f"{first} needs PyAV to read and write videos, which is not installed; install the "
            "extra video (uv sync --extra video), or give photographs"
        )


def _is_photograph(path: Path) -> bool:
    return path.suffix.lower() in PHOTOGRAPH_SUFFIXES


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES
