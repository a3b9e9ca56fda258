"""The demo's table and picture."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.coco.image_files import decode_image, resolve_image
from pipeline.coco.people import People
from pipeline.evaluation.comparison import Arm
from pipeline.evaluation.localisation import Difference
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import apply, box_to_crop, compose, invert, resize_affine
from pipeline.pictures.contact_sheet import contact_sheet
from pipeline.pictures.poses import (
    CENTRE_COLOUR,
    LEFT_COLOUR,
    RIGHT_COLOUR,
    Picture,
    draw_pose,
    keypoint_colours,
    overlay_heatmaps,
    write_png,
)
from pipeline.teachers import TeacherSettings, open_teacher

if TYPE_CHECKING:
    from stages.demo import DemoSize

NUM_SHOWN = 8
_TILE_HW = (320, 240)


def print_comparison(
    console: Console,
    arms: Sequence[Arm],
    difference: Difference,
    num_people: int,
    proves_something: bool,
) -> None:
    """Print one row per network (the mean over seeds) and the paired difference."""
    table = Table(box=box.ROUNDED, header_style="bold")
    table.add_column("")
    for title in ("AP", "AP, score 1", "mean OKS", "parameters", "mult-adds", "ms/person"):
        table.add_column(title, justify="right")
    for name in dict.fromkeys(arm.name for arm in arms):
        table.add_row(*_row(name, [arm for arm in arms if arm.name == name]))
    console.print(table)
    console.print(
        f"mean OKS, distilled minus plain: {difference.mean:+.4f}, 95 % interval over {num_people} "
        f"people {difference.low:+.4f} to {difference.high:+.4f}: {_verdict(difference)}"
    )
    if not proves_something:
        console.print(
            "The plain student's mean OKS is below twice the mean pose's: it has hardly learned "
            "anything, so this comparison PROVES NOTHING.",
            style="bold red",
        )


def comparison_json(arms: Sequence[Arm], difference: Difference, size: "DemoSize") -> str:
    """Return all figures of all arms and seeds as JSON."""
    return json.dumps(
        {
            "size": asdict(size),
            "arms": [
                {
                    "name": arm.name,
                    "own_score": arm.figures.own_score.as_dict(),
                    "score_one": arm.figures.score_one.as_dict(),
                    "mean_oks": arm.figures.mean_oks,
                    "cost": None if arm.cost is None else asdict(arm.cost),
                }
                for arm in arms
            ],
            "mean_oks_distilled_minus_plain": asdict(difference),
        },
        indent=2,
    )


def draw_people(
    path: Path, people: People, image_folder: Path, teacher: Path, arms: Sequence[Arm]
) -> None:
    """Draw people as rows: the person, the teacher's heat, each network's keypoints, the truth.

    arms: whose predictions are those of ``people``, in order.
    """
    opened = open_teacher(teacher, TeacherSettings())
    skeleton, colours = people.skeleton, keypoint_colours(people.skeleton)
    chosen = np.linspace(0, people.num_instances - 1, NUM_SHOWN).round().astype(int)
    crop_to_tile = resize_affine(opened.input_size_hw, _TILE_HW)
    tile_to_heatmap = compose(opened.crop_to_heatmap, invert(crop_to_tile))
    rows: list[list[Picture]] = []
    captions = []
    for person in chosen.tolist():
        name = people.image_name[people.image_index[person]]
        image = decode_image(resolve_image(image_folder, name))
        image_to_crop = box_to_crop(people.bbox_xywh[person], opened.input_size_hw)
        image_to_tile = compose(crop_to_tile, image_to_crop)
        tile = warp_crop(image, image_to_tile, _TILE_HW)
        crop = warp_crop(image, image_to_crop, opened.input_size_hw)
        heat = opened.observe(crop[None], skeleton.flip_indices).heatmaps[0]
        everything = np.ones(skeleton.num_keypoints, bool)
        poses = [
            draw_pose(
                tile, apply(image_to_tile, arm.predictions.keypoints[person]), everything, skeleton
            )
            for arm in arms
        ]
        truth = draw_pose(
            tile,
            apply(image_to_tile, people.keypoints[person, :, :2]),
            people.is_labelled[person],
            skeleton,
        )
        rows.append([tile, overlay_heatmaps(tile, heat, tile_to_heatmap, colours), *poses, truth])
        oks = "  ".join(f"{arm.name} {arm.figures.localisation.oks[person]:.2f}" for arm in arms)
        captions.append(f"{name}, person {people.instance_id[person]}, OKS: {oks}")
    legend = (
        ("the person's left", LEFT_COLOUR),
        ("right", RIGHT_COLOUR),
        ("middle", CENTRE_COLOUR),
    )
    titles = ["person", "teacher's heatmaps", *(arm.name for arm in arms), "truth"]
    write_png(path, contact_sheet(rows, titles, captions, legend))


def _row(name: str, arms: Sequence[Arm]) -> list[str]:
    own, one, oks = (
        _mean_and_spread(values)
        for values in (
            [arm.figures.own_score.AP for arm in arms],
            [arm.figures.score_one.AP for arm in arms],
            [arm.figures.mean_oks for arm in arms],
        )
    )
    cost = arms[0].cost
    if cost is None:
        return [name, own, one, oks, "-", "-", "-"]
    milliseconds = float(np.median([arm.cost.milliseconds for arm in arms if arm.cost]))
    return [
        *(name, own, one, oks, f"{cost.num_parameters / 1e6:.2f} M"),
        *(f"{cost.num_multiply_adds / 1e6:.0f} M", f"{milliseconds:.1f}"),
    ]


def _mean_and_spread(values: Sequence[float | None]) -> str:
    """Return the mean, with the standard deviation where there are several seeds."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ±{np.std(known, ddof=1):.3f}" if len(known) > 1 else ""
    return f"{np.mean(known):.3f}{spread}"


def _verdict(difference: Difference) -> str:
    if difference.low > 0:
        return "distillation helped"
    if difference.high < 0:
        return "distillation hurt"
    return "no difference is shown"
