"""A sheet of people as rows and the predictions of several networks as columns."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.coco.image_files import decode_image, resolve_image
from pipeline.coco.read_people import read_people
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import apply, box_to_crop, compose, invert, resize_affine
from pipeline.pictures.contact_sheet import contact_sheet
from pipeline.pictures.poses import (
    SIDES,
    Picture,
    draw_pose,
    keypoint_colours,
    overlay_heatmaps,
    write_png,
)
from pipeline.prediction.estimators import PoseEstimator, TeacherEstimator
from pipeline.prediction.networks import open_student
from pipeline.settings import PeopleSettings, TeacherSettings
from pipeline.teachers import open_teacher

NUM_SHOWN = 8
_TILE_HW = (320, 240)


def draw_people(
    path: Path,
    annotations: Path,
    image_folder: Path,
    teacher_weights: Path,
    students: Mapping[str, Path],
) -> None:
    """Write a sheet of people: the teacher's heatmaps, each network's keypoints, the truth.

    students: name -> weights file.
    """
    people = read_people(annotations, image_folder, PeopleSettings())
    skeleton, colours = people.skeleton, keypoint_colours(people.skeleton)
    teacher = open_teacher(teacher_weights, TeacherSettings())
    networks: dict[str, PoseEstimator] = {
        "teacher": TeacherEstimator(teacher, skeleton.flip_indices)
    }
    for name, weights in students.items():
        opened = open_student(weights, flip_test=True, threshold=None, device="cpu")
        networks[name] = opened.estimator
    rows: list[list[Picture]] = []
    captions = []
    chosen = np.linspace(0, people.num_instances - 1, NUM_SHOWN).round().astype(int)
    for person in chosen.tolist():
        name = people.image_name[people.image_index[person]]
        image = decode_image(resolve_image(image_folder, name))
        box = people.bbox_xywh[person]

        captions.append(f"{name}, person {people.instance_id[person]}")
        input_to_tile = resize_affine(teacher.input_size_hw, _TILE_HW)
        image_to_input = box_to_crop(box, teacher.input_size_hw)
        image_to_tile = compose(input_to_tile, image_to_input)
        tile = warp_crop(image, image_to_tile, _TILE_HW)
        crop = warp_crop(image, image_to_input, teacher.input_size_hw)
        heat = teacher.predict_and_decode(crop[None], skeleton.flip_indices).heatmaps[0]
        heated = overlay_heatmaps(
            tile, heat, compose(teacher.crop_to_heatmap, invert(input_to_tile)), colours
        )
        poses = []
        for estimator in networks.values():
            image_to_crop = box_to_crop(box, estimator.input_size_hw)
            found = estimator.estimate(
                warp_crop(image, image_to_crop, estimator.input_size_hw)[None]
            )
            points = apply(compose(image_to_tile, invert(image_to_crop)), found.keypoints[0])
            poses.append(draw_pose(tile, points, np.ones(len(points), bool), skeleton))
        truth = apply(image_to_tile, people.keypoints[person, :, :2])
        drawn_truth = draw_pose(tile, truth, people.is_labelled[person], skeleton)
        rows.append([tile, heated, *poses, drawn_truth])
    legend = (*SIDES, ("glow: heatmaps", None), ("dots and limbs: keypoints", None))
    heading = f"{NUM_SHOWN} of {people.num_instances:,} people of {annotations.name}, by network"
    titles = ["person", "teacher's heatmaps", *networks, "truth"]
    write_png(path, contact_sheet(rows, titles, captions, legend, heading))
