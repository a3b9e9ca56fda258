"""People drawn as coloured dots, a network that finds the dots, and probes of heatmaps."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.coco.people import IgnoreRegions, People, Skeleton
from pipeline.frames.geometry import apply, box_to_crop, crop_to_heatmap
from pipeline.frames.heatmaps import encode_keypoints
from pipeline.settings import HeatmapFrame, TeacherSettings
from pipeline.teachers.network import Prediction
from pipeline.teachers.probe import Probe, take_probe
from pipeline.teachers.teacher import Teacher

SIZE_HW, CELLS_HW = (128, 96), (32, 24)
NUM_PEOPLE = 24
COLOURS = ((255, 0, 0), (255, 255, 0), (255, 128, 0), (255, 0, 128))
NAMES = ("left_hand", "right_hand", "left_foot", "right_foot")
PAIRS, NO_PAIRS = (1, 0, 3, 2), (0, 1, 2, 3)
Maps = NDArray[np.float32]


class DotNetwork:
    """Finds a dot of each colour and draws a Gaussian there, in a frame of its own.

    A dot keeps its colour when the crop is mirrored, so it has no left and right: ``NO_PAIRS``.
    """

    kind = "dots"
    architecture = "dots"
    sha256 = "0" * 64
    input_size_hw = SIZE_HW
    heatmap_size_hw = CELLS_HW
    num_keypoints = 4
    keypoint_names: tuple[str, ...] | None = None
    fixed_batch_size: int | None = None
    num_threads: int | None = None
    token_shape: tuple[int, tuple[int, int]] | None = None

    def __init__(
        self,
        frame: HeatmapFrame = "half-pixel",
        change: Callable[[Maps], Maps] = lambda maps: maps,
        shift_cells: float = 0.0,
    ) -> None:
        self.heatmap_frame: HeatmapFrame = frame
        self._change, self._shift = change, shift_cells

    def forward(self, images: NDArray[np.float32], with_tokens: bool = False) -> Prediction:
        wanted = np.array(COLOURS, np.float32) / 255
        away = np.abs(images[:, None] - wanted[:, :, None, None]).sum(axis=2)  # (B, K, H, W)
        weight = np.maximum(0.4 - away, 0)
        total = weight.sum(axis=(2, 3))
        total[total < 1] = np.nan
        x = (weight.sum(axis=2) * np.arange(SIZE_HW[1])).sum(axis=-1) / total
        y = (weight.sum(axis=3) * np.arange(SIZE_HW[0])).sum(axis=-1) / total
        to_heatmap = crop_to_heatmap(self.heatmap_frame, SIZE_HW, CELLS_HW)
        points = apply(to_heatmap, np.stack([x, y], axis=-1)) + np.array([self._shift, 0])
        return Prediction(self._change(encode_keypoints(points, CELLS_HW)))

    def execution(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Dotted:
    """People on disk, each a box with a coloured dot at each of four keypoints."""

    people: People
    folder: Path
    image_to_crop: NDArray[np.float64]

    def probe(self, teacher: Teacher, num_people: int = NUM_PEOPLE) -> Probe:
        return take_probe(teacher, self.people, self.folder, self.image_to_crop, num_people)

    def with_pairs(self, flip_indices: tuple[int, ...]) -> People:
        skeleton = replace(self.people.skeleton, flip_indices=flip_indices)
        return replace(self.people, skeleton=skeleton)


def draw_dotted(folder: Path) -> Dotted:
    """Draw 24 people on 12 images into a folder."""
    generator = np.random.default_rng(5)
    boxes = np.tile([20.0, 20.0, 96.0, 128.0], (NUM_PEOPLE, 1))
    boxes[1::2, 0] += 140
    corners = np.array([[20, 25], [76, 25], [20, 103], [76, 103]])
    points = boxes[:, None, :2] + corners + generator.uniform(-6, 6, (NUM_PEOPLE, 4, 2))
    for index in range(NUM_PEOPLE // 2):
        image = Image.new("RGB", (280, 170), (10, 10, 10))
        draw = ImageDraw.Draw(image)
        for person in (2 * index, 2 * index + 1):
            for (x, y), colour in zip(points[person].tolist(), COLOURS, strict=True):
                draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=colour)
        image.save(folder / f"{index}.png")
    none = np.zeros(0, np.int64)
    people = People(
        skeleton=Skeleton(NAMES, ((0, 1),), NO_PAIRS, (0.1,) * 4),
        category_id=1,
        image_id=np.arange(NUM_PEOPLE // 2),
        image_name=tuple(f"{index}.png" for index in range(NUM_PEOPLE // 2)),
        image_size_hw=np.tile([170, 280], (NUM_PEOPLE // 2, 1)),
        instance_id=100 + np.arange(NUM_PEOPLE),
        image_index=np.arange(NUM_PEOPLE) // 2,
        bbox_xywh=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        keypoints=np.dstack([points, np.full((NUM_PEOPLE, 4), 2)]).astype(np.float32),
        ignored=IgnoreRegions(
            none, none, np.zeros((0, 4)), np.zeros(0), none.astype(np.bool_), none
        ),
    )
    return Dotted(people, folder, box_to_crop(boxes, SIZE_HW)[:, None])


def teacher_of(network: DotNetwork, **settings: Any) -> Teacher:
    """Return a teacher that sees plain pixels over 255, unless told otherwise."""
    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return Teacher(network, TeacherSettings(**{**plain, **settings}))


def probe_of(heatmaps: Maps) -> Probe:
    """Return a probe that found these heatmaps on black crops."""
    rows = np.arange(len(heatmaps))
    crops = np.zeros((len(heatmaps), *SIZE_HW, 3), np.uint8)
    return Probe(rows, crops, heatmaps, np.zeros((len(heatmaps), 2, 3)))


def gaussians(peak: float = 1.0) -> Maps:
    """Return heatmaps of 30 people, one Gaussian on each."""
    points = np.random.default_rng(0).uniform(4, 20, (30, 4, 2))
    return np.float32(peak) * encode_keypoints(points, CELLS_HW)
