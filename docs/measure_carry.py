"""Time and error of the two ways to carry heat into a view: python docs/measure_carry.py

Resampled: the maps are warped into the view, and the loss compares factors of Gaussians there.
Exact: the student's Gaussian is taken into the teacher's frame, where it is rotated, so that it
must be drawn cell by cell. Both are timed on one thread, for a batch of 64 people of 17 keypoints.
"""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipeline.frames.carrying import carry_heatmaps
from pipeline.frames.geometry import apply, compose, crop_to_heatmap, invert, view_to_crop
from pipeline.frames.heatmaps import encode_keypoints
from pipeline.training.heatmap_losses import simulated_heatmap_loss

BATCH, KEYPOINTS = 64, 17
CROP, HEATMAP, SIGMA = (256, 192), (64, 48), 2.0


def median_ms(run: Callable[[], object], repeats: int = 15) -> float:
    """Return the median time of a call, in ms."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times))


def exact_loss(points: Tensor, sigmas: Tensor, linear: Tensor, heat: Tensor) -> Tensor:
    """Draw the Gaussians in the teacher's frame: covariance A diag(sigma^2) A', cell by cell."""
    covariance = linear @ torch.diag_embed(sigmas.square()) @ linear.transpose(-1, -2)
    a, b, c = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
    determinant = a * c - b * b
    x = torch.arange(HEATMAP[1]) - points[..., 0, None, None]
    y = torch.arange(HEATMAP[0])[:, None] - points[..., 1, None, None]
    p, q, r = ((v / determinant)[..., None, None] for v in (c, -b, a))
    exponents = (-0.5 * (p * x * x + 2 * q * x * y + r * y * y)).clamp(min=-80)
    return (exponents.exp() - heat).square().mean()


def main() -> None:
    """Print both times, and how far the resampled loss is from the exact one."""
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    centre, size = np.full((BATCH, 2), 128.0), np.tile([144.0, 192.0], (BATCH, 1))
    image_to_crop = view_to_crop(centre, size, np.zeros(BATCH), CROP)
    scale = np.clip(1 + 0.35 * random.standard_normal(BATCH), 0.65, 1.35)
    angle = np.clip(math.radians(45) * random.standard_normal(BATCH), -1.57, 1.57)
    image_to_view = view_to_crop(centre, size * scale[:, None], angle, CROP)
    affine = crop_to_heatmap("half-pixel", CROP, HEATMAP)
    truth = random.uniform(70, 186, (BATCH, KEYPOINTS, 2))
    heat = encode_keypoints(apply(compose(affine, image_to_crop), truth), HEATMAP, SIGMA)
    levels = np.round(255 * heat).astype(np.uint8)
    moved = compose(image_to_view, invert(image_to_crop))
    flip = tuple(range(KEYPOINTS))
    carried = carry_heatmaps(levels, moved, affine, affine, HEATMAP, flip)

    noise = random.normal(0, 1.5, truth.shape)
    in_view = apply(compose(affine, image_to_view), truth) + noise
    to_teacher = compose(
        compose(affine, compose(image_to_crop, invert(image_to_view))), invert(affine)
    )
    points = torch.tensor(in_view, dtype=torch.float32, requires_grad=True)
    sigmas = torch.full((BATCH, KEYPOINTS, 2), SIGMA, requires_grad=True)
    there = torch.tensor(apply(to_teacher, in_view), dtype=torch.float32, requires_grad=True)
    linear = torch.tensor(to_teacher[:, None, :, :2], dtype=torch.float32)
    maps, known = torch.from_numpy(carried.heatmaps), torch.from_numpy(carried.is_known)
    weights, scales = torch.ones(BATCH, KEYPOINTS), torch.full((BATCH, KEYPOINTS), 1 / 255)
    stored = torch.from_numpy(levels).float() / 255

    def resampled() -> Tensor:
        return simulated_heatmap_loss(points, sigmas, maps, weights, scales, is_known=known)

    def exact() -> Tensor:
        return exact_loss(there, sigmas, linear, stored)

    warp = median_ms(lambda: carry_heatmaps(levels, moved, affine, affine, HEATMAP, flip))
    in_factors = median_ms(lambda: torch.autograd.grad(resampled(), [points, sigmas]))
    drawn = median_ms(lambda: torch.autograd.grad(exact(), [there, sigmas]))
    print(
        f"resampled: {warp / BATCH:.2f} ms a person in the loader, loss {in_factors:.1f} ms a batch"
    )
    print(f"exact: nothing in the loader, loss {drawn:.1f} ms a batch")
    live = encode_keypoints(apply(compose(affine, image_to_view), truth), HEATMAP, 1.0)
    widths = SIGMA / scale[:, None, None, None]
    live = np.power(
        live, 1 / widths**2, dtype=np.float32
    )  # Gaussians of the width that the view magnifies them to
    error = np.abs(carried.heatmaps / 255 - live)[np.broadcast_to(known[:, None], live.shape)]
    print(f"resampled heat: off by {error.max():.3f} at most, {np.sqrt((error**2).mean()):.4f} RMS")


if __name__ == "__main__":
    main()
