"""Networks that others have published, rebuilt from the tensors of their checkpoints.

The tensors decide which network it is: their names tell the code they come from, their shapes the
size. The number of attention heads and the scale of attention are in no shape: they are those of
the code's own configurations. Where the same names and shapes fit two networks, an architecture
must be given.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import ConfigError
from pipeline.models.backbones import Backbone
from pipeline.models.heads import HeatmapHead
from pipeline.models.high_resolution import HighResolutionTrunk
from pipeline.models.pose_networks import (
    STUDENTS,
    TEACHERS,
    ConvTeacher,
    HeatmapTeacher,
    Student,
    TokenPoseTeacher,
)
from pipeline.models.published_names import POSITIONS, Family, Naming, naming_of, own_names
from pipeline.models.timm_trunks import TimmTrunk
from pipeline.models.trunks import (
    trunk_tokenpose_l,
    trunk_tokenpose_s,
    trunk_tokenpose_t,
)
from pipeline.models.vision_transformer import PATCH, VisionTransformerTrunk
from pipeline.settings import HeatmapFrame

Build = Callable[[int], Student | HeatmapTeacher]
"""Builds a network of so many keypoints."""
Tensors = Mapping[str, Tensor]

CONV_INPUT_SIZE_HW = (256, 192)
"""Size of the crops of a network whose tensors do not tell: most of the published ones take it."""
KNOWN = (
    "HRNet, SimpleBaseline, TokenPose-S, -T and -L, ViTPose with the classic head, DistilPose's "
    "students and teachers"
)


@dataclass(frozen=True)
class PublishedNetwork:
    """A published network with its weights, in evaluation mode."""

    network: Student | HeatmapTeacher
    heatmap_frame: HeatmapFrame
    """Frame of the heatmaps that its code trains with."""
    tensors: Tensors
    """The tensors in use, by the names of the network's state dict; positions among them."""
    unused: tuple[str, ...]
    """Names of the checkpoint's tensors that the network has no place for."""
    has_scores: bool
    """Whether a student's head has scores and sigmas; without distillation it has none."""


def is_published(names: Mapping[str, object]) -> bool:
    """Return whether the names of tensors are those of a checkpoint known here."""
    return naming_of(names) is not None


def renamed_tensors(tensors: Tensors) -> dict[str, Tensor]:
    """Return the tensors of a published checkpoint by the names of this project's networks.

    Raises:
        ConfigError: it is of no published code known here.
    """
    naming = _naming(tensors)
    return {own: tensors[name] for name, own in own_names(naming, tensors).items()}


def build_published(
    tensors: Tensors,
    *,
    architecture: str | None = None,
    input_size_hw: tuple[int, int] | None = None,
) -> PublishedNetwork:
    """Rebuild the network of a published checkpoint.

    architecture: name of the network, where the tensors fit several.
    input_size_hw: size of the crops; needed only where the tensors do not tell and it is not
        256 x 192.

    Raises:
        ConfigError: the checkpoint is of no known network, lacks tensors, or fits several networks;
            or architecture or size are not those of the checkpoint.
    """
    naming = _naming(tensors)
    renamed = own_names(naming, tensors)
    own = {name: _in_float32(tensors[theirs]) for theirs, name in renamed.items()}
    has_scores = True
    if naming.family == "distilpose-student":
        has_scores = len(own.get("head.linear.bias", ())) != 2
        own = _with_all_channels(own)
    if naming.family == "vitpose":
        own = _with_patch_positions(own)
    network = _fitting_network(naming, own, architecture, input_size_hw)
    state = network.state_dict()
    # Counts of batches are read in training only, and older checkpoints lack them.
    counts = {name: torch.zeros((), dtype=torch.long) for name in state if name.endswith(_COUNT)}
    used = {**counts, **{name: tensor for name, tensor in own.items() if name in state}}
    network.load_state_dict(used, assign=True)
    if POSITIONS in own:
        _set_positions(network, own[POSITIONS])
        used[POSITIONS] = own[POSITIONS]
    unused = tuple(name for name in tensors if renamed.get(name) not in used)
    frame: HeatmapFrame = "udp" if naming.family == "vitpose" else "msra"
    return PublishedNetwork(network.eval(), frame, used, unused, has_scores)


_COUNT = ".num_batches_tracked"
_SPARE = re.compile(r"\.fuse_layers\.")
"""Parts of a published network whose output nothing reads: fusions into other branches."""


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _naming(tensors: Tensors) -> Naming:
    naming = naming_of(tensors)
    if naming is None:
        shown = ", ".join(list(tensors)[:3])
        raise ConfigError(
            f"the names of the tensors ({shown}, ...) are of no published network known here; "
            f"expected {KNOWN}; export the network to ONNX (docs/teachers.md) and give that file"
        )
    return naming


def _fitting_network(
    naming: Naming,
    own: Tensors,
    architecture: str | None,
    input_size_hw: tuple[int, int] | None,
) -> Student | HeatmapTeacher:
    """Return the network, without weights, whose tensors have the checkpoint's names and shapes."""
    candidates = _CANDIDATES[naming.family](own, input_size_hw or CONV_INPUT_SIZE_HW)
    num_keypoints = _num_keypoints(own)
    networks = {}
    misfits: dict[str, list[str]] = {}
    for name, build in candidates.items():
        with torch.device("meta"):
            networks[name] = build(num_keypoints)
        misfits[name] = _misfits(networks[name], own)
    fitting = [name for name, found in misfits.items() if not found]
    if not fitting:
        nearest = min(misfits, key=lambda name: len(misfits[name]))
        raise ConfigError(
            f"the tensors are not those of {nearest}: {misfits[nearest][0]}"
            + (f", and {len(misfits[nearest]) - 1} more" if len(misfits[nearest]) > 1 else "")
            + "; give a whole checkpoint of a published network, or export it to ONNX "
            "(docs/teachers.md)"
        )
    if architecture is not None and architecture not in fitting:
        raise ConfigError(
            f"architecture is {architecture}, but the tensors are those of {' or '.join(fitting)}; "
            + ("give one of them" if len(fitting) > 1 else "leave the option out")
        )
    if architecture is None and len(fitting) > 1:
        choices = "; ".join(f"--architecture {name} ({_SCALES[name]})" for name in fitting)
        raise ConfigError(f"the tensors do not tell how attention is scaled; give {choices}")
    network = networks[architecture or fitting[0]]
    if input_size_hw is not None and input_size_hw != network.input_size_hw:
        height, width = network.input_size_hw
        raise ConfigError(
            f"{network.architecture} takes crops of {height}x{width} (height x width), but "
            f"--input-size is {input_size_hw[0]}x{input_size_hw[1]}; leave the option out"
        )
    return network


def _misfits(network: torch.nn.Module, own: Tensors) -> list[str]:
    """Return what the checkpoint's tensors lack, or have in another shape, a phrase each."""
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    encoder = getattr(network, "encoder", None)
    if encoder is not None:
        expected[POSITIONS] = (1, encoder.positions.shape[1] - encoder.num_keypoints,
                               encoder.positions.shape[2])  # fmt: skip
    found = []
    for name, shape in expected.items():
        if name not in own and not name.endswith(_COUNT):
            found.append(f"{name} is missing")
        elif name in own and tuple(own[name].shape) != shape:
            found.append(f"{name} has shape {tuple(own[name].shape)}, expected {shape}")
    others = [name for name in own if name not in expected and not _SPARE.search(name)]
    return [*found, *(f"{name} has no place there" for name in others)]


def _set_positions(network: torch.nn.Module, positions: Tensor) -> None:
    encoder: Any = network.get_submodule("encoder")
    encoder.positions = functional.pad(positions, (0, 0, encoder.num_keypoints, 0))


def _num_keypoints(own: Tensors) -> int:
    tokens = own.get("encoder.keypoint_tokens")
    if tokens is not None:
        return tokens.shape[1]
    final = own.get("head.final.weight")
    if final is None:
        raise ConfigError(
            "there is no final layer, which predicts the heatmaps; expected the checkpoint of a "
            "whole pose network, not that of a backbone"
        )
    return final.shape[0]


def _with_all_channels(own: Tensors) -> dict[str, Tensor]:
    """Return a student's tensors with the channels of score and sigmas, 0 where it has none.

    Students trained without distillation regress (x, y) alone; nothing reads their score.
    """
    padded = dict(own)
    for name in ("head.linear.weight", "head.linear.bias"):
        tensor = own.get(name)
        if tensor is not None and len(tensor) == 2:
            padded[name] = torch.cat([tensor, tensor.new_zeros(3, *tensor.shape[1:])])
    return padded


def _with_patch_positions(own: Tensors) -> dict[str, Tensor]:
    """Return a vision transformer's tensors with one position for each patch.

    The published ones have a class token's position before them, which is added to all patches.
    """
    positions = own.get("backbone.body.pos_embed")
    if positions is None or positions.shape[1] % 12 == 0:
        return dict(own)
    return {**own, "backbone.body.pos_embed": positions[:, 1:] + positions[:, :1]}


def _hrnet(own: Tensors, input_size_hw: tuple[int, int]) -> dict[str, Build]:
    first = own.get("backbone.stage4.0.branches.0.0.conv1.weight")
    width = 0 if first is None else first.shape[0]
    return _conv(f"hrnet-w{width}", input_size_hw, lambda: HighResolutionTrunk(f"hrnet_w{width}"))


_RESNETS: Mapping[tuple[int, ...], int] = {
    (2, 2, 2, 2): 18,
    (3, 4, 6, 3): 50,
    (3, 4, 23, 3): 101,
    (3, 8, 36, 3): 152,
}


def _simplebaseline(own: Tensors, input_size_hw: tuple[int, int]) -> dict[str, Build]:
    blocks = tuple(
        sum(f"backbone.body.layer{stage}.{block}.conv1.weight" in own for block in range(40))
        for stage in (1, 2, 3, 4)
    )
    depth = _RESNETS.get(blocks, 50)
    if depth == 50 and "backbone.body.layer1.0.conv3.weight" not in own:
        depth = 34
    return _conv(
        f"simplebaseline-r{depth}",
        input_size_hw,
        lambda: TimmTrunk(f"resnet{depth}", input_size_hw, strides=(32,)),
    )


_TRANSFORMERS = {384: ("s", 12, 12), 768: ("b", 12, 12), 1024: ("l", 24, 16), 1280: ("h", 32, 16)}
"""Name, layers and attention heads of ViTPose by the width of its tokens."""


def _vitpose(own: Tensors, _: tuple[int, int]) -> dict[str, Build]:
    positions = own.get("backbone.body.pos_embed")
    if positions is None or positions.shape[2] not in _TRANSFORMERS:
        raise ConfigError(
            "the width of the vision transformer is not that of ViTPose-S, -B, -L or -H; export "
            "the network to ONNX (docs/teachers.md) and give that file"
        )
    dim = positions.shape[2]
    size, depth, num_heads = _TRANSFORMERS[dim]
    # All published crops have an aspect of 4 to 3.
    unit = round((positions.shape[1] / 12) ** 0.5)
    input_size_hw = (4 * unit * PATCH, 3 * unit * PATCH)
    return _conv(
        f"vitpose-{size}",
        input_size_hw,
        lambda: VisionTransformerTrunk(input_size_hw, dim, depth, num_heads),
    )


def _conv(
    name: str, input_size_hw: tuple[int, int], backbone: Callable[[], Backbone]
) -> dict[str, Build]:
    return {name: lambda num_keypoints: ConvTeacher(name, input_size_hw, backbone(), num_keypoints)}


def _tokenpose_s(name: str, patch_size_hw: tuple[int, int]) -> Build:
    return lambda num_keypoints: TokenPoseTeacher(
        name, *trunk_tokenpose_s(num_keypoints, patch_size_hw), HeatmapHead(192, 384, (64, 48))
    )


_PUBLISHED_TEACHERS: Mapping[str, Build] = {
    "tokenpose-s-v1": _tokenpose_s("tokenpose-s-v1", (4, 3)),
    "tokenpose-s-v2": _tokenpose_s("tokenpose-s-v2", (2, 2)),
    "tokenpose-t": lambda num_keypoints: TokenPoseTeacher(
        "tokenpose-t", *trunk_tokenpose_t(num_keypoints), HeatmapHead(192, 384, (64, 48))
    ),
    "tokenpose-l-384x288": lambda num_keypoints: TokenPoseTeacher(
        "tokenpose-l-384x288",
        *trunk_tokenpose_l(num_keypoints, (384, 288), (6, 4)),
        HeatmapHead(3 * 192, None, (96, 72)),
    ),
}
_HRNET = "backbone.transition1.0.0.weight"
"""A tensor that a backbone of HRNet's stages has, and HRNet's stem alone has not."""
_SCALES = {
    "tokenpose-s-v1": "by 1 / sqrt(width), as the released code of TokenPose-S",
    "tokenpose-s": "by 1 / sqrt(width of a head), as the code of DistilPose",
}
"""Scale of attention of the networks that have the same tensors."""


def _token_networks(*names: str) -> Callable[[Tensors, tuple[int, int]], dict[str, Build]]:
    known: dict[str, Build] = {**STUDENTS, **TEACHERS, **_PUBLISHED_TEACHERS}
    return lambda _, __: {name: known[name] for name in names}


def _by_backbone(
    of_stem: str, of_hrnet: str
) -> Callable[[Tensors, tuple[int, int]], dict[str, Build]]:
    small, large = _token_networks(of_stem), _token_networks(of_hrnet)
    return lambda own, size: (large if _HRNET in own else small)(own, size)


_CANDIDATES: Mapping[Family, Callable[[Tensors, tuple[int, int]], dict[str, Build]]] = {
    "hrnet": _hrnet,
    "simplebaseline": _simplebaseline,
    "vitpose": _vitpose,
    "tokenpose-s": _token_networks("tokenpose-s-v1", "tokenpose-s", "tokenpose-s-v2"),
    "tokenpose-l": _token_networks("tokenpose-l", "tokenpose-l-384x288"),
    "tokenpose-t": _token_networks("tokenpose-t"),
    "distilpose-teacher": _by_backbone("tokenpose-s", "tokenpose-hrnet48"),
    "distilpose-student": _by_backbone("distilpose-s", "distilpose-l"),
}
"""The networks that a checkpoint of each family may hold."""
