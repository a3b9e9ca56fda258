"""Parameter names of published checkpoints, and this project's names of the same parameters.

Three code bases name the networks: that of HRNet and SimpleBaseline (Microsoft, leoxiaobin), that
of TokenPose, and mmpose, on which DistilPose and ViTPose are built; mmpose 1.x names heads and
vision transformers anew. The names alone tell which code a checkpoint comes from.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Family = Literal[
    "hrnet", "simplebaseline", "vitpose", "tokenpose-s", "tokenpose-l", "tokenpose-t",
    "distilpose-teacher", "distilpose-student",
]  # fmt: skip
"""Code and kind of network that the names of a checkpoint tell."""

POSITIONS = "encoder.positions"
"""Name of the positions of a token encoder, which are no part of its state dict."""


class Naming(NamedTuple):
    """The names of one family of checkpoints."""

    family: Family
    marker: str
    """Pattern of a name that only checkpoints of this family have."""
    rules: Mapping[str, str]
    """Pattern of a published name -> the project's name; the first pattern that matches counts."""


_CONV_HEAD = {
    r"(?:keypoint_head\.|head\.)?final_layer\.(.+)": r"head.final.\1",
    **{
        rf"(?:keypoint_head\.|head\.)?deconv_layers\.{3 * index + part}\.(.+)": (
            rf"head.deconvolution{index + 1}.{part}.\1"
        )
        for index in range(3)
        for part in (0, 1)
    },
}
_MMPOSE_1_TRANSFORMER = {
    r"backbone\.layers\.(\d+)\.ln([12])\.(.+)": r"backbone.body.blocks.\1.norm\2.\3",
    r"backbone\.layers\.(\d+)\.ffn\.layers\.0\.0\.(.+)": r"backbone.body.blocks.\1.mlp.fc1.\2",
    r"backbone\.layers\.(\d+)\.ffn\.layers\.1\.(.+)": r"backbone.body.blocks.\1.mlp.fc2.\2",
    r"backbone\.layers\.(\d+)\.attn\.(.+)": r"backbone.body.blocks.\1.attn.\2",
    r"backbone\.ln1\.(.+)": r"backbone.body.norm.\1",
    r"backbone\.patch_embed\.projection\.(.+)": r"backbone.body.patch_embed.proj.\1",
}


def _encoder(prefix: str) -> dict[str, str]:
    """Return the rules of a token encoder and its head below a prefix, but those of its layers."""
    return {
        rf"{prefix}keypoint_token": "encoder.keypoint_tokens",
        rf"{prefix}pos_embedding": POSITIONS,
        rf"{prefix}patch_to_embedding\.(.+)": r"encoder.patch_embedding.\1",
        rf"{prefix}mlp_head\.0\.(.+)": r"head.norm.\1",
        rf"{prefix}mlp_head\.1\.(.+)": r"head.hidden.\1",
        rf"{prefix}mlp_head\.2\.(.+)": r"head.hidden_norm.\1",
        rf"{prefix}mlp_head\.3\.(.+)": r"head.linear.\1",
    }


_SAME_BACKBONE = {r"backbone\.(.+)": r"backbone.\1"}
_NAMINGS = (
    Naming(
        "tokenpose-l",
        r"transformer\.transformer1\.layers\.0\..+",
        {**_encoder(r"transformer\."), r"pre_feature\.(.+)": r"backbone.\1"},
    ),
    Naming(
        "tokenpose-s",
        r"features\.keypoint_token",
        {**_encoder(r"features\."), r"features\.((?:conv|bn|layer)\d\..+)": r"backbone.\1"},
    ),
    Naming(
        "tokenpose-t",
        r"transformer\.keypoint_token",
        _encoder(r"transformer\."),
    ),
    Naming(
        "distilpose-teacher",
        r"keypoint_head\.tokenpose\.keypoint_token",
        {**_encoder(r"keypoint_head\.tokenpose\."), **_SAME_BACKBONE},
    ),
    Naming(
        "distilpose-student",
        r"keypoint_head\.tokenhead\.keypoint_token",
        {**_encoder(r"keypoint_head\.tokenhead\."), **_SAME_BACKBONE},
    ),
    Naming(
        "vitpose",
        r"backbone\.patch_embed\.proj(?:ection)?\.weight",
        {
            **_CONV_HEAD,
            **_MMPOSE_1_TRANSFORMER,
            r"backbone\.last_norm\.(.+)": r"backbone.body.norm.\1",
            r"backbone\.(pos_embed|(?:patch_embed|blocks)\..+)": r"backbone.body.\1",
        },
    ),
    Naming(
        "hrnet",
        r"(?:backbone\.)?stage4\.0\.branches\..+",
        {
            **_CONV_HEAD,
            r"(?:backbone\.)?((?:conv|bn|layer|transition|stage)\d\..+)": r"backbone.\1",
        },
    ),
    Naming(
        "simplebaseline",
        r"(?:keypoint_head\.|head\.)?deconv_layers\.0\.weight",
        {**_CONV_HEAD, r"(?:backbone\.)?((?:conv|bn|layer)\d\..+)": r"backbone.body.\1"},
    ),
)

_LAYER = re.compile(r".*\btransformer(\d?)\.layers\.(\d+)\.(.+)\.(weight|bias)")
_PARTS_OF_LAYER = {
    "0.fn.norm": "attention_norm",
    "0.fn.fn.to_qkv": "qkv",
    "0.fn.fn.to_out.0": "attention_out",
    "1.fn.norm": "mlp_norm",
    "1.fn.fn.net.0": "mlp_in",
    "1.fn.fn.net.3": "mlp_out",
}


def naming_of(names: Iterable[str]) -> Naming | None:
    """Return the naming of a checkpoint's names; None: it is of no published code known here."""
    present = list(names)
    for naming in _NAMINGS:
        if any(re.fullmatch(naming.marker, name) for name in present):
            return naming
    return None


def own_names(naming: Naming, names: Iterable[str]) -> dict[str, str]:
    """Return published name -> the project's name; names that no rule knows are left out.

    The layers of a token encoder that has several groups of layers are counted through.
    """
    present = list(names)
    found = [match for name in present if (match := _LAYER.fullmatch(name))]
    layers_of_group = 1 + max((int(match[2]) for match in found), default=0)
    has_hidden = any(re.search(r"mlp_head\.3\.", name) for name in present)
    renamed = {}
    for name in present:
        layer = _LAYER.fullmatch(name)
        own = _of_layer(layer, layers_of_group) if layer else _by_rule(naming, name)
        if own is not None:
            # A head without a hidden layer has its only linear layer in second place.
            renamed[name] = own if has_hidden else own.replace("head.hidden.", "head.linear.")
    return renamed


def _by_rule(naming: Naming, name: str) -> str | None:
    for pattern, replacement in naming.rules.items():
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    return None


def _of_layer(match: re.Match[str], layers_of_group: int) -> str | None:
    group, index, part, kind = match.groups()
    own = _PARTS_OF_LAYER.get(part)
    number = layers_of_group * (int(group or 1) - 1) + int(index)
    return None if own is None else f"encoder.layers.{number}.{own}.{kind}"
