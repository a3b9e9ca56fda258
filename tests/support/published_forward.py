"""The published networks as functions of a checkpoint's tensors, written from their definitions.

Nothing of the project is used, nor any layer of torch that keeps weights. HRNet: Sun et al., CVPR
2019; SimpleBaseline: Xiao et al., ECCV 2018; TokenPose: Li et al., ICCV 2021; ViTPose: Xu et al.,
NeurIPS 2022; DistilPose: CVPR 2023.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Tensors = dict[str, Tensor]


def _conv(t: Tensors, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = t[f"{name}.weight"]
    return F.conv2d(x, weight, t.get(f"{name}.bias"), stride, weight.shape[-1] // 2)


def _batch_norm(t: Tensors, name: str, x: Tensor) -> Tensor:
    mean, variance, weight, bias = (
        t[f"{name}.{part}"].view(1, -1, 1, 1)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def _conv_norm(t: Tensors, conv: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
    return _batch_norm(t, norm, _conv(t, conv, x, stride))


def _residual(t: Tensors, name: str, x: Tensor, num_convs: int, stride: int = 1) -> Tensor:
    """A basic block (two 3 x 3) or a bottleneck (three); the first 3 x 3 has the stride."""
    y = x
    strides = {2: (stride, 1), 3: (1, stride, 1)}[num_convs]
    for number, step in enumerate(strides, 1):
        y = _conv_norm(t, f"{name}.conv{number}", f"{name}.bn{number}", y, step)
        y = y.relu() if number < num_convs else y
    if f"{name}.downsample.0.weight" in t:
        x = _conv_norm(t, f"{name}.downsample.0", f"{name}.downsample.1", x, stride)
    return (y + x).relu()


def stem(t: Tensors, prefix: str, x: Tensor) -> Tensor:
    for number in (1, 2):
        x = _conv_norm(t, f"{prefix}conv{number}", f"{prefix}bn{number}", x, 2).relu()
    for block in range(4):
        x = _residual(t, f"{prefix}layer1.{block}", x, 3)
    return x


def hrnet(t: Tensors, prefix: str, x: Tensor, num_stages: int) -> Tensor:
    branches = [stem(t, prefix, x)]
    for stage in range(2, num_stages + 1):
        begun = []
        for branch in range(stage):
            name = f"{prefix}transition{stage - 1}.{branch}"
            source = branches[min(branch, len(branches) - 1)]
            if branch == len(branches):
                begun.append(_conv_norm(t, f"{name}.0.0", f"{name}.0.1", source, 2).relu())
            elif f"{name}.0.weight" in t:
                begun.append(_conv_norm(t, f"{name}.0", f"{name}.1", source).relu())
            else:
                begun.append(source)
        branches = begun
        for module in range((1, 4, 3)[stage - 2]):
            branches = _module(t, f"{prefix}stage{stage}.{module}", branches)
    return branches[0]


def _module(t: Tensors, name: str, branches: list[Tensor]) -> list[Tensor]:
    for branch in range(len(branches)):
        for block in range(4):
            branches[branch] = _residual(
                t, f"{name}.branches.{branch}.{block}", branches[branch], 2
            )
    fused: list[Tensor] = []
    for to in range(len(branches)):
        total = torch.zeros(())
        for source, y in enumerate(branches):
            fuse = f"{name}.fuse_layers.{to}.{source}"
            if source > to:
                if f"{fuse}.0.weight" not in t:
                    return fused
                y = _conv_norm(t, f"{fuse}.0", f"{fuse}.1", y)
                y = y.repeat_interleave(2 ** (source - to), 2)  # nearest neighbours
                y = y.repeat_interleave(2 ** (source - to), 3)
            for step in range(to - source):
                if f"{fuse}.{step}.0.weight" not in t:
                    return fused
                y = _conv_norm(t, f"{fuse}.{step}.0", f"{fuse}.{step}.1", y, 2)
                y = y.relu() if step < to - source - 1 else y
            total = total + y
        fused.append(total.relu())
    return fused


def conv_head(t: Tensors, prefix: str, x: Tensor) -> Tensor:
    for index in range(3):
        name = f"{prefix}deconv_layers.{3 * index}.weight"
        if name in t:
            x = F.conv_transpose2d(x, t[name], stride=2, padding=1)
            x = _batch_norm(t, f"{prefix}deconv_layers.{3 * index + 1}", x).relu()
    return _conv(t, f"{prefix}final_layer", x)


def simplebaseline(t: Tensors, x: Tensor) -> Tensor:
    x = F.max_pool2d(_conv_norm(t, "conv1", "bn1", x, 2).relu(), 3, 2, 1)
    for stage, count in enumerate((3, 4, 6, 3)):
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _residual(t, f"layer{stage + 1}.{block}", x, 3, stride)
    return conv_head(t, "", x)


def _linear(t: Tensors, name: str, x: Tensor) -> Tensor:
    y = x @ t[f"{name}.weight"].T
    return y + t[f"{name}.bias"] if f"{name}.bias" in t else y


def _layer_norm(t: Tensors, name: str, x: Tensor, epsilon: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / (variance + epsilon).sqrt() * t[f"{name}.weight"] + t[f"{name}.bias"]


def _gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def _attention(t: Tensors, qkv: str, out: str, x: Tensor, num_heads: int, scale: float) -> Tensor:
    batch, length, dim = x.shape
    query, key, value = (
        part.view(batch, length, num_heads, dim // num_heads)
        for part in _linear(t, qkv, x).chunk(3, -1)
    )
    weights = (torch.einsum("bihd,bjhd->bhij", query, key) * scale).softmax(-1)
    mixed = torch.einsum("bhij,bjhd->bihd", weights, value)
    return _linear(t, out, mixed.reshape(batch, length, dim))


def vitpose(t: Tensors, x: Tensor, num_heads: int) -> Tensor:
    name = "backbone.patch_embed.proj"
    x = F.conv2d(x, t[f"{name}.weight"], t[f"{name}.bias"], stride=16, padding=2)
    batch, dim, rows, columns = x.shape
    tokens = x.flatten(2).mT
    tokens = tokens + t["backbone.pos_embed"][:, 1:] + t["backbone.pos_embed"][:, :1]
    for block in range(12):
        name = f"backbone.blocks.{block}"
        normed = _layer_norm(t, f"{name}.norm1", tokens, 1e-6)
        scale = (dim // num_heads) ** -0.5
        tokens = tokens + _attention(
            t, f"{name}.attn.qkv", f"{name}.attn.proj", normed, num_heads, scale
        )
        normed = _layer_norm(t, f"{name}.norm2", tokens, 1e-6)
        hidden = _gelu(_linear(t, f"{name}.mlp.fc1", normed))
        tokens = tokens + _linear(t, f"{name}.mlp.fc2", hidden)
    tokens = _layer_norm(t, "backbone.last_norm", tokens, 1e-6)
    return conv_head(t, "keypoint_head.", tokens.mT.reshape(batch, dim, rows, columns))


class Encoded(NamedTuple):
    """Outputs of a token encoder and its head."""

    outputs: Tensor  # (B, K, C)
    tokens: Tensor  # (B, K + P, D), after the last layer


def encode(
    t: Tensors,
    prefix: str,
    features: Tensor,
    patch_hw: tuple[int, int],
    num_heads: int,
    scale: float,
) -> Encoded:
    """TokenPose's encoder with positions before every layer (``sine-full``), and its head."""
    batch, _, height, width = features.shape
    patch_h, patch_w = patch_hw
    patches = torch.stack(
        [
            features[:, :, y : y + patch_h, x : x + patch_w].permute(0, 2, 3, 1).flatten(1)
            for y in range(0, height, patch_h)
            for x in range(0, width, patch_w)
        ],
        dim=1,
    )
    positions = t[f"{prefix}pos_embedding"]
    visual = _linear(t, f"{prefix}patch_to_embedding", patches) + positions
    x = torch.cat([t[f"{prefix}keypoint_token"].expand(batch, -1, -1), visual], 1)
    seen = []
    for group in ("", "1", "2", "3"):
        index = 0
        while f"{(layer := f'{prefix}transformer{group}.layers.{index}')}.0.fn.norm.weight" in t:
            if index > 0:
                x = torch.cat([x[:, :17], x[:, 17:] + positions], 1)
            normed = _layer_norm(t, f"{layer}.0.fn.norm", x, 1e-5)
            x = x + _attention(
                t, f"{layer}.0.fn.fn.to_qkv", f"{layer}.0.fn.fn.to_out.0", normed, num_heads, scale
            )
            hidden = _gelu(_linear(t, f"{layer}.1.fn.fn.net.0",
                                   _layer_norm(t, f"{layer}.1.fn.norm", x, 1e-5)))  # fmt: skip
            x = x + _linear(t, f"{layer}.1.fn.fn.net.3", hidden)
            index += 1
        if index:
            seen.append(x[:, :17])
    outputs = torch.cat(seen, 2)
    number = 0
    while f"{prefix}mlp_head.{number}.weight" in t:
        outputs = _layer_norm(t, f"{prefix}mlp_head.{number}", outputs, 1e-5)
        outputs = _linear(t, f"{prefix}mlp_head.{number + 1}", outputs)
        number += 2
    return Encoded(outputs, x)
