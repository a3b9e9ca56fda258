"""Pictures of people in a report: the truth, the pose of every student, and the teacher's."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.image_files import decode_image, resolve_image
from pipeline.coco.people import People
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import apply, box_to_crop
from pipeline.pictures.beside_teacher import draw_in_rings, pose_oks
from pipeline.pictures.poses import draw_pose, encode_jpeg
from pipeline.report.teacher import TeacherPoses

TILE_HW = (320, 240)
TRUTH, TEACHER = "truth", "teacher"
_QUALITY = 80


@dataclass(frozen=True)
class Tile:
    """One picture of a person."""

    label: str
    oks: float | None
    """OKS of the pose; None: of the truth."""
    jpeg: str
    """The picture as a data URI."""


@dataclass(frozen=True)
class ShownPerson:
    """A person and the pictures of it."""

    caption: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Group:
    """People that are shown together."""

    title: str
    rows: NDArray[np.int64]


def choose_people(oks: Sequence[NDArray[np.float64]], first: str, number: int) -> list[Group]:
    """Choose the people to show: of the first run's lowest OKS, those around its median, and, of
    several runs, those of whom another run's OKS differs most from the first's.

    oks: of each run, (N,); NaN: not defined.
    first: name of the first run.
    number: how many people a group has, at most.
    """
    order = np.argsort(oks[0], kind="stable")
    order = order[: np.count_nonzero(~np.isnan(oks[0]))]
    start = max(0, (len(order) - number) // 2)
    groups = [
        Group(f"The lowest OKS of {first}", order[:number]),
        Group(f"Around the median OKS of {first}", order[start : start + number]),
    ]
    if len(oks) > 1:
        gap = np.abs(np.stack(oks[1:])[:, order] - oks[0][order]).max(axis=0)
        by_gap = order[np.argsort(-gap, kind="stable")]
        groups.append(Group(f"Where a run differs most from {first}", by_gap[:number]))
    return groups


def draw_people(
    people: People,
    image_folder: Path,
    rows: NDArray[np.int64],
    students: Mapping[str, NDArray[np.float64]],
    teacher: TeacherPoses | None,
) -> list[ShownPerson]:
    """Draw people: the truth, then a tile for every student, then one for the teacher.

    rows: (n,), rows of ``people``.
    students: name -> keypoints of all people, (N, K, 2) as (x, y), image pixels.
    teacher: poses of the people of ``rows``.

    Raises:
        ImageError: an image cannot be decoded whole.
    """
    poses = {name: keypoints[rows] for name, keypoints in students.items()}
    if teacher is not None:
        poses[TEACHER] = teacher.keypoints
    oks = {name: pose_oks(people, rows, keypoints) for name, keypoints in poses.items()}
    shown = []
    for place, row in enumerate(rows.tolist()):
        name = people.image_name[people.image_index[row]]
        image_to_tile = box_to_crop(people.bbox_xywh[row], TILE_HW)
        tile = warp_crop(decode_image(resolve_image(image_folder, name)), image_to_tile, TILE_HW)
        truth, skeleton = people.keypoints[row], people.skeleton
        places = apply(image_to_tile, truth[:, :2])
        tiles = [Tile(TRUTH, None, _uri(draw_pose(tile, places, truth[:, 2] > 0, skeleton)))]
        for whose, keypoints in poses.items():
            drawn = draw_in_rings(tile, image_to_tile, truth, keypoints[place], skeleton)
            tiles.append(Tile(whose, float(oks[whose][place]), _uri(drawn)))
        caption = f"{name}, annotation {people.instance_id[row]}"
        shown.append(ShownPerson(caption, tuple(tiles)))
    return shown


def _uri(picture: NDArray[np.uint8]) -> str:
    content = base64.b64encode(encode_jpeg(picture, _QUALITY)).decode()
    return f"data:image/jpeg;base64,{content}"
