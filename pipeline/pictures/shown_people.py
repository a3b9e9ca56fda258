"""The people that a picture shows: which ones, where their images are, and by which teacher."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.teacher_store.reader import TeacherStore


def spread_rows(rows: NDArray[np.int64], num_wanted: int, seed: int) -> NDArray[np.int64]:
    """Pick rows spread over all, in order: one out of each of ``num_wanted`` equal stretches."""
    parts = np.array_split(rows, num_wanted) if len(rows) > num_wanted else [[r] for r in rows]
    random = np.random.default_rng(seed)
    return np.array([random.choice(part) for part in parts], np.int64)


def image_folder_of(store: TeacherStore, given: Path | None) -> Path:
    """Return the folder of a store's images: the one given, or the one it was made from.

    Raises:
        ConfigError: the store names none, or there is none.
    """
    recorded = store.provenance.get("images")
    folder = given or (Path(recorded) if isinstance(recorded, str) else None)
    if folder is None:
        raise ConfigError(
            f"{store.path} does not say where its images were; name their folder with --images"
        )
    if not folder.is_dir():
        whose = "--images" if given else f"{store.path} was made from images that"
        raise ConfigError(
            f"{whose} must lie in a folder, but there is none at {folder}; name the folder of the "
            f"same images with --images"
        )
    return folder


def teacher_title(store: TeacherStore) -> str:
    """Return the name of the file that a store's teacher came from, or its name in the store."""
    recorded = store.provenance.get("teacher")
    return Path(recorded).name if isinstance(recorded, str) else store.teacher
