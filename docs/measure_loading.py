"""Where the time of a carried batch goes, and what warping in torch would change.

    python -m docs.measure_loading STORE

STORE: written with --views 0 --crops. Processor time of one thread, medians of seven batches of 64
people for crops of 256 x 192.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import compose, invert
from pipeline.training.data import draw_batch
from pipeline.training.held_views import hold_plain_views
from pipeline.training.settings import CarriedViewSettings
from pipeline.training.store_sources import open_store_views
from pipeline.training.view_order import ViewBatch

BATCH, SIZE_HW = 64, (256, 192)


def milliseconds(run: Callable[[], object], repeats: int = 7) -> float:
    """Return the processor time of a call for one person, in ms."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return 1e3 * float(np.median(times)) / BATCH


def warp_in_torch(crops: Tensor, crop_to_view: np.ndarray) -> Tensor:
    """Warp (B, H, W, 3) uint8 crops as ``warp_crop`` does, by grid_sample."""
    rows, columns = SIZE_HW
    back = torch.from_numpy(invert(crop_to_view)).float()
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1).reshape(-1, 3).float()
    source = (points @ back.transpose(1, 2)).reshape(len(crops), rows, columns, 2)
    halves = torch.tensor([(crops.shape[2] - 1) / 2, (crops.shape[1] - 1) / 2])
    pixels = crops.permute(0, 3, 1, 2).float()
    # corners aligned: -1 and 1 are the centres of the first and the last pixel
    warped = torch.nn.functional.grid_sample(pixels, source / halves - 1, align_corners=True)
    return warped.round().to(torch.uint8).permute(0, 2, 3, 1)


def main() -> None:
    """Print the parts, the whole with and without held crops, and torch's warp beside OpenCV's."""
    torch.set_num_threads(1)
    data = CarriedViewSettings(from_crops=True)
    views = open_store_views(sys.argv[1], None, data, frozenset({"heatmaps"}))
    store, dataset = views.store, views.dataset(SIZE_HW)
    rows = np.resize(views.instances, BATCH)
    batch, plain = ViewBatch(rows, np.full(BATCH, 3)), np.zeros(BATCH, np.int64)
    wide = store.read_wide_crops(rows, plain)
    image_to_view = draw_batch(views.people, data.recipe, 0, batch, SIZE_HW)
    crop_to_view = compose(image_to_view, invert(wide.image_to_wide_crop))

    def warp() -> np.ndarray:
        pairs = zip(wide.crops, crop_to_view, strict=True)
        return np.stack([warp_crop(crop, affine, SIZE_HW) for crop, affine in pairs])

    parts = {
        "reading heatmaps": lambda: store.read(rows, plain),
        "reading and decoding crops": lambda: store.read_wide_crops(rows, plain),
        "drawing views": lambda: draw_batch(views.people, data.recipe, 0, batch, SIZE_HW),
        "warping crops": warp,
        "the whole": lambda: dataset[batch],
    }
    for name, run in parts.items():
        print(f"{name}: {milliseconds(run):.2f} ms a person")
    hold_plain_views(dataset, views.instances)
    print(f"the whole, held: {milliseconds(lambda: dataset[batch]):.2f} ms a person")
    crops = torch.from_numpy(wide.crops)
    in_torch = milliseconds(lambda: warp_in_torch(crops, crop_to_view), repeats=3)
    difference = np.abs(warp_in_torch(crops, crop_to_view).numpy().astype(int) - warp())
    print(
        f"warping crops in torch: {in_torch:.2f} ms a person, at most {difference.max()} levels "
        f"from OpenCV's"
    )


if __name__ == "__main__":
    main()
