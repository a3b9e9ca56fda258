"""Run of a network with tokens, and people -> sheet: attention to the image, layer by layer."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.errors import ConfigError
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import apply, box_to_crop, resize_affine
from pipeline.machine import choose_device
from pipeline.models.pose_networks import Student
from pipeline.pictures.attention import (
    PersonAttention,
    attend,
    attention_tile,
    encoder_of,
    shown_layers,
)
from pipeline.pictures.contact_sheet import Phrase, contact_sheet, write_sheet
from pipeline.pictures.poses import HEAT_COLOUR, Picture, draw_pose, ring_keypoints
from pipeline.pictures.shown_people import spread_rows
from pipeline.prediction.networks import best_weights
from pipeline.runs.checkpoints import load_network
from pipeline.runs.run_folder import RunFolder
from pipeline.training.images import TrainingImages
from pipeline.wording import counted
from stages.run_people import people_of_run
from stages.settings.pictures import ShowAttentionConfig
from stages.settings.training import TrainStudentConfig, TrainTeacherConfig

TILE_HEIGHT = 256
NUM_KEYPOINTS = 5
"""Number of keypoints of a person that are drawn where none are named."""
NUM_NAMED = 2
"""Number of tokens that a caption names."""


def show_attention(config: ShowAttentionConfig) -> Path:
    """Draw the attention of keypoint tokens to the image, and return where the sheet lies.

    Raises:
        DistilError: the run or the people are at fault, or the network has no attention.
    """
    network, info = load_network(best_weights(config.attention))
    encoder_of(network)
    folder_of_run = RunFolder(config.attention)
    run: TrainStudentConfig | TrainTeacherConfig = (
        folder_of_run.read_config(TrainStudentConfig)
        if isinstance(network, Student)
        else folder_of_run.read_config(TrainTeacherConfig)
    )
    people, folder, source = people_of_run(
        run, config.attention, info.skeleton, config.annotations, config.images
    )
    rows = spread_rows(np.arange(people.num_instances), config.num_people, config.seed)
    files = TrainingImages(people, folder)
    images = [files.read(index) for index in people.image_index[rows].tolist()]
    size_hw = info.input_size_hw
    image_to_crop = box_to_crop(people.bbox_xywh[rows], size_hw, info.padding)
    pairs = zip(images, image_to_crop, strict=True)
    crops = np.stack([warp_crop(image, affine, size_hw) for image, affine in pairs])
    attention = attend(network, info, crops, str(choose_device(config.device)))

    tile_hw = (TILE_HEIGHT, round(TILE_HEIGHT * size_hw[1] / size_hw[0]))
    image_to_tile = box_to_crop(people.bbox_xywh[rows], tile_hw, info.padding)
    layers = shown_layers(len(attention[0].to_image))
    tiles, captions = [], []
    for place, row in enumerate(rows.tolist()):
        tile = warp_crop(images[place], image_to_tile[place], tile_hw)
        name = people.image_name[people.image_index[row]]
        of_person = attention[place]
        points = apply(resize_affine(size_hw, tile_hw), of_person.keypoints)
        for keypoint in _shown_keypoints(people, row, config.keypoints):
            tiles.append(_tiles(tile, points, of_person, keypoint, layers, people))
            captions.append(_caption(people, name, of_person, keypoint))
    rows_of_grid, columns_of_grid = attention[0].to_image.shape[-2:]
    legend: list[Phrase] = [
        ("attention of the keypoint's token to the image, mean over heads", HEAT_COLOUR),
        (f"each picture: {rows_of_grid} x {columns_of_grid} patches, drawn smoothly", None),
        ("brightest: the picture's own peak, the largest share of one patch", None),
        ("on the image: share of all attention; the rest is on keypoint tokens", None),
        ("ring: where the network predicts the keypoint", None),
    ]
    heading = (
        f"{counted(len(rows), 'person')} of {source}: where the keypoint tokens of "
        f"{info.architecture} attend to. Run: {config.attention}, epoch {info.epoch}"
    )
    titles = ["prediction", *(f"layer {layer + 1}" for layer in layers)]
    write_sheet(config.output, contact_sheet(tiles, titles, captions, legend, heading))
    return config.output


def _shown_keypoints(people: People, row: int, names: tuple[str, ...]) -> list[int]:
    """Return the named keypoints, or some of the labelled ones, or of all where none is."""
    known = people.skeleton.keypoint_names
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"there is no keypoint {unknown[0]!r}; keypoints: {', '.join(known)}")
    if names:
        return [known.index(name) for name in names]
    labelled = np.flatnonzero(people.is_labelled[row])
    candidates = labelled if len(labelled) else np.arange(len(known))
    places = np.linspace(0, len(candidates) - 1, min(NUM_KEYPOINTS, len(candidates)))
    return [int(candidates[int(place)]) for place in places.round()]


def _tiles(
    tile: Picture,
    points: NDArray[np.float64],
    attention: PersonAttention,
    keypoint: int,
    layers: list[int],
    people: People,
) -> list[Picture]:
    """Draw a keypoint's row: the predicted pose, then the attention in each layer."""
    skeleton = people.skeleton
    everything = np.ones(len(points), bool)
    only = np.arange(len(points)) == keypoint
    pose = draw_pose(tile, points, everything, skeleton)
    tiles = [ring_keypoints(pose, points, only, skeleton)]
    for layer in layers:
        drawn = attention_tile(tile, attention.to_image[layer, keypoint])
        tiles.append(ring_keypoints(drawn, points, only, skeleton))
    return tiles


def _caption(people: People, name: str, attention: PersonAttention, keypoint: int) -> str:
    """Name the keypoint, and the keypoint tokens that it takes most from in the last layer."""
    names = people.skeleton.keypoint_names
    last = attention.to_keypoints[-1, keypoint]
    most = np.argsort(-last, kind="stable")[:NUM_NAMED].tolist()
    tokens = " and ".join(
        f"{'its own' if other == keypoint else _spoken(names[other])} ({last[other]:.0%})"
        for other in most
    )
    return (
        f"{_spoken(names[keypoint])}, {name}; of the keypoint tokens the last layer attends most "
        f"to {tokens}"
    )


def _spoken(name: str) -> str:
    return name.replace("_", " ")
