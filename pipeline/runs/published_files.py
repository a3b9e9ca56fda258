"""Files of published checkpoints: their tensors, and their students with a description.

A file is read as tensors only, never as pickled code: ``torch.load(weights_only=True)`` or
safetensors. What stands around the tensors is taken off: the ``state_dict`` of a training's
checkpoint, and the ``module.`` that data-parallel training puts before every name.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

from pipeline.coco.poses import ScoreKind
from pipeline.coco.skeletons import coco_skeleton
from pipeline.errors import ConfigError, RunFolderError
from pipeline.frames.geometry import SizeHW
from pipeline.models.pose_networks import HeatmapTeacher, Student
from pipeline.models.published_networks import PublishedNetwork, build_published
from pipeline.runs.checkpoints import CheckpointInfo, describe_network, has_header, load_network
from pipeline.settings import PADDING
from pipeline.wording import counted

PICKLED = (".pth", ".pt", ".bin", ".ckpt")
SUFFIXES = (*PICKLED, ".safetensors")
"""Endings of the names of published checkpoints."""

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_DATA_PARALLEL = "module."
_CODE = re.compile(r"GLOBAL ([\w.]+)|Unsupported class ([\w.]+)")
"""What torch says of a class or function that a file would import."""
_MOST_NAMES = 5
# mmpose writes arrays and numbers of numpy, such as a data set's sigmas, beside the tensors. The
# functions that rebuild them had other names in numpy 1.
_REBUILD_ARRAY, _REBUILD_NUMBER = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
_ARRAYS: list[Any] = [
    _REBUILD_ARRAY,
    _REBUILD_NUMBER,
    (_REBUILD_ARRAY, "numpy.core.multiarray._reconstruct"),
    (_REBUILD_NUMBER, "numpy.core.multiarray.scalar"),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float32", "float64", "int32", "int64", "bool", "uint8")),
]


def is_published_file(path: Path) -> bool:
    """Return whether a file can be a published checkpoint: by its ending, and with no header."""
    return path.is_file() and path.suffix in SUFFIXES and not has_header(path)


def read_published(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by their published names.

    Raises:
        RunFolderError: there is no such file, or it holds something else than tensors.
    """
    content = _read(path)
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise RunFolderError(
            f"{path} holds no tensors by name, but {', '.join(map(str, list(content)[:3]))}; give "
            "a checkpoint with the state dict of a network"
        )
    if all(name.startswith(_DATA_PARALLEL) for name in tensors):
        tensors = {name.removeprefix(_DATA_PARALLEL): tensor for name, tensor in tensors.items()}
    return tensors


def load_published(
    path: Path, *, architecture: str | None = None, input_size_hw: SizeHW | None = None
) -> PublishedNetwork:
    """Rebuild the network of a published checkpoint; arguments as of ``build_published``.

    Raises:
        RunFolderError: the file cannot be read, or is of no network known here.
        ConfigError: the architecture is missing, or not that of the tensors.
    """
    tensors = read_published(path)
    try:
        return build_published(tensors, architecture=architecture, input_size_hw=input_size_hw)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def load_student(path: Path) -> tuple[Student, CheckpointInfo, tuple[str, ...]]:
    """Rebuild the student of a weights file, trained here or published.

    Returns the network, its description, and notes on what a published file lacks or has too much.

    Raises:
        RunFolderError: the file cannot be read, holds no student, or one of unknown keypoints.
        ConfigError: it is of no published network known here.
    """
    notes: tuple[str, ...] = ()
    if is_published_file(path):
        network, info, notes = _load_published_student(path)
    else:
        network, info = load_network(path)
    if not isinstance(network, Student):
        raise RunFolderError(
            f"{path} holds a teacher ({network.architecture}); expected a student; evaluate it "
            "with --teacher"
        )
    return network, info, notes


def _load_published_student(
    path: Path,
) -> tuple[Student | HeatmapTeacher, CheckpointInfo, tuple[str, ...]]:
    published = load_published(path)
    network, skeleton = published.network, coco_skeleton()
    if isinstance(network, Student) and network.num_keypoints != skeleton.num_keypoints:
        raise RunFolderError(
            f"{path} predicts {counted(network.num_keypoints, 'keypoint')} without naming them; "
            f"expected the {skeleton.num_keypoints} of COCO; train a student on your keypoints, "
            "from its weights if you like (--init-weights)"
        )
    rule: ScoreKind = "learned" if published.has_scores else "one"
    info = describe_network(network, skeleton, padding=PADDING, seed=0, score_rule=rule)
    scored = tuple(range(network.num_keypoints)) if published.has_scores else ()
    notes = [note for note in [describe_unused(path, published)] if note]
    if not published.has_scores:
        notes.append(f"{path} has no scores and sigmas: every pose is scored 1")
    return network, info.model_copy(update={"scored_keypoints": scored}), tuple(notes)


def describe_unused(path: Path, published: PublishedNetwork) -> str | None:
    """Name the tensors of a checkpoint that its network has no place for; None: all are used."""
    names = published.unused
    if not names:
        return None
    shown = ", ".join(names[:_MOST_NAMES])
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return (
        f"{counted(len(names), 'tensor')} of {path} not used by {published.network.architecture}: "
        f"{shown}{more}"
    )


def _read(path: Path) -> Mapping[Any, Any]:
    if not path.is_file():
        raise RunFolderError(f"there is no file {path}; give the path of a checkpoint")
    try:
        if path.suffix == ".safetensors":
            return load_file(str(path))
        with safe_globals(_ARRAYS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise RunFolderError(f"{path} is not a whole safetensors file: {error}") from error
    except Exception as error:  # torch, pickle and zipfile raise errors of many kinds
        code = _CODE.search(str(error))
        if code is None:
            raise RunFolderError(f"{path} is no whole file of torch.save; give another") from error
        raise RunFolderError(
            f"{path} holds {code[1]}, which is code and is never run here; expected tensors alone; "
            "save them where the file comes from: torch.save(network.state_dict(), FILE)"
        ) from error
    if not isinstance(content, Mapping):
        raise RunFolderError(
            f"{path} holds a {type(content).__name__}; expected a state dict, or a checkpoint with "
            "one"
        )
    return content
