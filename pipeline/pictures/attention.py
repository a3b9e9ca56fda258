"""The attention of keypoint tokens, drawn over the person, as TokenPose and DistilPose show it.

A keypoint token collects its pose from visual tokens, one for each patch of the image, and from
other keypoint tokens. Its row of attention, the mean over heads, says how much from each.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.frames.geometry import SizeHW, apply, crop_to_heatmap, invert, resize_affine
from pipeline.frames.heatmaps import decode_heatmaps
from pipeline.models.attention import recorded_attention
from pipeline.models.heads import StudentOutput
from pipeline.models.pose_networks import PoseNetwork
from pipeline.models.token_encoder import TokenDistillingEncoder
from pipeline.pictures.contact_sheet import label_tile
from pipeline.pictures.poses import HEAT_COLOUR, Picture, overlay_heatmaps
from pipeline.runs.checkpoints import CheckpointInfo

MOST_LAYERS = 6
"""Number of columns, at most; of deeper encoders layers are left out in between."""

OPACITY = 0.75
"""Opacity of the strongest attention, so that the person stays visible where it is flat."""


@dataclass(frozen=True)
class PersonAttention:
    """The attention of the keypoint tokens of one person, by layer, the mean over heads."""

    to_image: NDArray[np.float32]  # (L, K, rows, columns) of the patch grid
    to_keypoints: NDArray[np.float32]  # (L, K, K); with the former, a keypoint's sum is 1
    keypoints: NDArray[np.float64]  # (K, 2) as (x, y), crop pixels, as the network predicts them


def encoder_of(network: PoseNetwork) -> TokenDistillingEncoder:
    """Return the token encoder of a network.

    Raises:
        ConfigError: the network has none, and so no attention.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, TokenDistillingEncoder):
        raise ConfigError(
            f"{network.architecture} has no token encoder, so it has no attention to draw; choose "
            "the run of a network with tokens"
        )
    return encoder


@torch.inference_mode()
def attend(
    network: PoseNetwork, info: CheckpointInfo, crops: NDArray[np.uint8], device: str
) -> list[PersonAttention]:
    """Run a network on crops, and return the attention of every person.

    crops: (B, H, W, 3) uint8, RGB, of the network's input size.

    Raises:
        ConfigError: the network has no attention.
    """
    encoder = encoder_of(network)
    images = info.pixels.normalise(torch.from_numpy(crops).to(device))
    with recorded_attention(encoder) as layers:
        output = network.to(device).eval()(images)
    num_keypoints, grid_hw = encoder.num_keypoints, encoder.token_shape.grid_hw
    rows = torch.stack([layer.mean(dim=1)[:, :num_keypoints] for layer in layers], dim=1)
    attention = rows.float().cpu().numpy()  # (B, L, K, K + P)
    to_image = attention[..., num_keypoints:].reshape(*attention.shape[:3], *grid_hw)
    keypoints = _keypoints(output, info)
    return [
        PersonAttention(*person)
        for person in zip(to_image, attention[..., :num_keypoints], keypoints, strict=True)
    ]


def shown_layers(num_layers: int) -> list[int]:
    """Return the layers that are drawn, from 0: all of few, else the first to the last, spread."""
    places = np.linspace(0, num_layers - 1, min(num_layers, MOST_LAYERS))
    return [int(place) for place in places.round()]


def attention_tile(tile: Picture, to_image: NDArray[np.float32]) -> Picture:
    """Draw the attention of one token to the image, as bright at its maximum in every tile.

    tile: (h, w, 3) uint8, RGB, the crop at any size.
    to_image: (rows, columns) of the patch grid, weights.
    """
    rows, columns = to_image.shape
    tile_to_grid = resize_affine((tile.shape[0], tile.shape[1]), (rows, columns))
    strongest = float(to_image.max())
    heat = OPACITY * to_image[None] / max(strongest, float(np.finfo(np.float32).tiny))
    text = f"{to_image.sum():.0%} on the image, peak {strongest:.1%}"
    return label_tile(overlay_heatmaps(tile, heat, tile_to_grid, HEAT_COLOUR), text)


def _keypoints(
    output: StudentOutput | tuple[Tensor, object], info: CheckpointInfo
) -> NDArray[np.float64]:
    if isinstance(output, StudentOutput):
        size_wh = np.array(info.input_size_hw[::-1])
        return np.asarray(output.keypoints.double().cpu().numpy() * size_wh)
    heatmaps = output[0].float().cpu().numpy()
    assert info.heatmap_frame is not None
    size_hw: SizeHW = heatmaps.shape[-2], heatmaps.shape[-1]
    points, _ = decode_heatmaps(heatmaps)
    return apply(invert(crop_to_heatmap(info.heatmap_frame, info.input_size_hw, size_hw)), points)
