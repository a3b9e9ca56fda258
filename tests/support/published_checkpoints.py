"""Checkpoints with the names and shapes of published ones, and weights drawn anew.

Written from the published model definitions, as is ``published_forward.py``; the tests compare both
names and shapes with the inventories of real checkpoints where those are at hand.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def drawn(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Draw tensors whose products keep the size of their input; positions are drawn too."""
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str, shape: tuple[int, ...]) -> Tensor:
        if name.endswith("num_batches_tracked"):
            return torch.tensor(7)
        normal = torch.randn(shape, generator=generator)
        if name.endswith("running_var"):
            return 0.5 + torch.rand(shape, generator=generator)
        if len(shape) < 2 or name.endswith(("token", "pos_embedding", "pos_embed")):
            return (1 if name.endswith("weight") else 0) + 0.3 * normal
        return normal / math.sqrt(math.prod(shape[1:]))

    return {name: draw(name, shape) for name, shape in shapes.items()}


def _norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def _conv_norm(
    conv: str, norm: str, out: int, channels: int, kernel: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{conv}.weight", (out, channels, kernel, kernel)
    yield from _norm(norm, out)


def _bottlenecks(
    name: str, channels: int, planes: int, count: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for index in range(count):
        block = f"{name}.{index}"
        width = channels if index == 0 else 4 * planes
        yield from _conv_norm(f"{block}.conv1", f"{block}.bn1", planes, width, 1)
        yield from _conv_norm(f"{block}.conv2", f"{block}.bn2", planes, planes, 3)
        yield from _conv_norm(f"{block}.conv3", f"{block}.bn3", 4 * planes, planes, 1)
        if index == 0:
            skip = f"{block}.downsample"
            yield from _conv_norm(f"{skip}.0", f"{skip}.1", 4 * planes, channels, 1)


def stem_shapes(prefix: str) -> Shapes:
    """HRNet's stem and first stage."""
    return dict(
        [
            *_conv_norm(f"{prefix}conv1", f"{prefix}bn1", 64, 3, 3),
            *_conv_norm(f"{prefix}conv2", f"{prefix}bn2", 64, 64, 3),
            *_bottlenecks(f"{prefix}layer1", 64, 64, 4),
        ]
    )


def hrnet_shapes(prefix: str, width: int, num_stages: int) -> Shapes:
    """HRNet without a head; the last module fuses into the first branch alone."""
    shapes = stem_shapes(prefix)
    widths = [width * 2**branch for branch in range(num_stages)]
    before = [256]
    for stage in range(2, num_stages + 1):
        for branch in range(stage):
            change = f"{prefix}transition{stage - 1}.{branch}"
            if branch >= len(before):
                shapes |= _conv_norm(f"{change}.0.0", f"{change}.0.1", widths[branch],
                                     before[-1], 3)  # fmt: skip
            elif before[branch] != widths[branch]:
                shapes |= _conv_norm(f"{change}.0", f"{change}.1", widths[branch],
                                     before[branch], 3)  # fmt: skip
        before = widths[:stage]
        modules = (1, 4, 3)[stage - 2]
        for module in range(modules):
            is_last = stage == num_stages and module == modules - 1
            shapes |= _module(f"{prefix}stage{stage}.{module}", before, 1 if is_last else stage)
    return shapes


def _module(name: str, widths: list[int], num_outputs: int) -> Shapes:
    shapes: Shapes = {}
    for branch, width in enumerate(widths):
        for index in range(4):
            block = f"{name}.branches.{branch}.{index}"
            for number in (1, 2):
                shapes |= _conv_norm(f"{block}.conv{number}", f"{block}.bn{number}",
                                     width, width, 3)  # fmt: skip
    for to in range(num_outputs):
        for source in range(len(widths)):
            fuse = f"{name}.fuse_layers.{to}.{source}"
            if source > to:
                shapes |= _conv_norm(f"{fuse}.0", f"{fuse}.1", widths[to], widths[source], 1)
            for step in range(to - source):
                out = widths[to] if step == to - source - 1 else widths[source]
                shapes |= _conv_norm(f"{fuse}.{step}.0", f"{fuse}.{step}.1", out,
                                     widths[source], 3)  # fmt: skip
    return shapes


def head_shapes(prefix: str, channels: int, num_deconvolutions: int, keypoints: int = 17) -> Shapes:
    shapes: Shapes = {}
    for index in range(num_deconvolutions):
        before = channels if index == 0 else 256
        shapes[f"{prefix}deconv_layers.{3 * index}.weight"] = (before, 256, 4, 4)
        shapes |= _norm(f"{prefix}deconv_layers.{3 * index + 1}", 256)
    width = 256 if num_deconvolutions else channels
    shapes[f"{prefix}final_layer.weight"] = (keypoints, width, 1, 1)
    shapes[f"{prefix}final_layer.bias"] = (keypoints,)
    return shapes


def hrnet(width: int) -> Shapes:
    return hrnet_shapes("", width, 4) | head_shapes("", width, 0)


def simplebaseline() -> Shapes:
    """SimpleBaseline of ResNet-50."""
    shapes: Shapes = dict(_conv_norm("conv1", "bn1", 64, 3, 7))
    for stage, count in enumerate((3, 4, 6, 3)):
        channels = 64 if stage == 0 else 128 * 2**stage
        shapes |= _bottlenecks(f"layer{stage + 1}", channels, 64 * 2**stage, count)
    return shapes | head_shapes("", 2048, 3)


def vitpose(dim: int, depth: int = 12) -> Shapes:
    shapes: Shapes = {
        "backbone.pos_embed": (1, 193, dim),
        "backbone.patch_embed.proj.weight": (dim, 3, 16, 16),
        "backbone.patch_embed.proj.bias": (dim,),
    }
    linear = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "mlp.fc1": (4 * dim, dim),
              "mlp.fc2": (dim, 4 * dim)}  # fmt: skip
    norms = [f"blocks.{block}.norm{number}" for block in range(depth) for number in (1, 2)]
    for name in (*norms, "last_norm"):
        shapes |= {f"backbone.{name}.{part}": (dim,) for part in ("weight", "bias")}
    for block in range(depth):
        for name, shape in linear.items():
            shapes[f"backbone.blocks.{block}.{name}.weight"] = shape
            shapes[f"backbone.blocks.{block}.{name}.bias"] = shape[:1]
    return shapes | head_shapes("keypoint_head.", dim, 2)


def encoder_shapes(
    prefix: str, patches: int, patch: int, head: list[int], groups: int = 1, depth: int = 12
) -> Shapes:
    """The encoder of width 192 and its head.

    patch: numbers in a patch. head: widths of its linear layers, before them the layer norms'.
    """
    shapes: Shapes = {
        f"{prefix}keypoint_token": (1, 17, 192),
        f"{prefix}pos_embedding": (1, patches, 192),
        f"{prefix}patch_to_embedding.weight": (192, patch),
        f"{prefix}patch_to_embedding.bias": (192,),
    }
    for group in range(1, groups + 1):
        name = "transformer" if groups == 1 else f"transformer{group}"
        for index in range(depth // groups):
            layer = f"{prefix}{name}.layers.{index}"
            shapes |= {f"{layer}.{n}.fn.norm.{part}": (192,)
                       for n in (0, 1) for part in ("weight", "bias")}  # fmt: skip
            shapes[f"{layer}.0.fn.fn.to_qkv.weight"] = (576, 192)
            for part, shape in {"0.fn.fn.to_out.0": (192, 192), "1.fn.fn.net.0": (576, 192),
                                "1.fn.fn.net.3": (192, 576)}.items():  # fmt: skip
                shapes[f"{layer}.{part}.weight"] = shape
                shapes[f"{layer}.{part}.bias"] = shape[:1]
    width = 192 * groups
    for number, out in enumerate(head):
        shapes |= {f"{prefix}mlp_head.{2 * number}.{part}": (width,) for part in ("weight", "bias")}
        shapes[f"{prefix}mlp_head.{2 * number + 1}.weight"] = (out, width)
        shapes[f"{prefix}mlp_head.{2 * number + 1}.bias"] = (out,)
        width = out
    return shapes


def _tokenpose_s(patches: int, patch: int) -> Shapes:
    return stem_shapes("features.") | encoder_shapes("features.", patches, patch, [384, 3072])


def _tokenpose_l(patches: int, patch: int, heat: int) -> Shapes:
    encoder = encoder_shapes("transformer.", patches, patch, [heat], groups=3, depth=24)
    return hrnet_shapes("pre_feature.", 48, 3) | encoder


def _distilpose(prefix: str, head: list[int], num_stages: int | None) -> Shapes:
    backbone = (
        stem_shapes("backbone.")
        if num_stages is None
        else hrnet_shapes("backbone.", 48, num_stages)
    )
    patch = 12 * (256 if num_stages is None else 48)
    return backbone | encoder_shapes(f"keypoint_head.{prefix}.", 256, patch, head)


PUBLISHED: dict[str, Callable[[], Shapes]] = {
    "hrnet_w32_256x192": lambda: hrnet(32),
    "hrnet_w48_256x192": lambda: hrnet(48),
    "simplebaseline_res50_256x192": simplebaseline,
    "vitpose_small_classic_256x192": lambda: vitpose(384),
    "vitpose_base_classic_256x192": lambda: vitpose(768),
    "tokenpose_tokenpose_s_v1_256_192_patch43_dim192_depth12_heads8": lambda: _tokenpose_s(
        256, 12 * 256
    ),
    "tokenpose_tokenpose_s_v2_256_192_patch22_dim192_depth12_heads8": lambda: _tokenpose_s(
        768, 4 * 256
    ),
    "tokenpose_tokenpose_t_256_192_patch1612_dim192_depth12_heads16": lambda: encoder_shapes(
        "transformer.", 256, 576, [384, 3072]
    ),
    "tokenpose_tokenpose_L_D24_256_192_patch43_dim192_depth24_heads12": lambda: _tokenpose_l(
        256, 576, 3072
    ),
    "tokenpose_tokenpose_L_D24_384_288_patch64_dim192_depth24_heads12": lambda: _tokenpose_l(
        288, 1152, 6912
    ),
    "distilpose_teacher_stemnet_coco_256x192": lambda: _distilpose("tokenpose", [384, 3072], None),
    "distilpose_teacher_hr48_coco_256x192": lambda: _distilpose("tokenpose", [384, 3072], 4),
    "distilpose_DistilPose_S_coco_256x192": lambda: _distilpose("tokenhead", [5], None),
    "distilpose_DistilPose_L_coco_256x192": lambda: _distilpose("tokenhead", [5], 3),
    "distilpose_stemnet_coco_256x192": lambda: _distilpose("tokenhead", [2], None),
    "distilpose_hr48_3stage_coco_256x192": lambda: _distilpose("tokenhead", [2], 3),
}
"""Names and shapes of published checkpoints, by the name of their inventory."""
