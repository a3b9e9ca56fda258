"""Every usual layout of a detector's outputs gives the same boxes; overlaps are torchvision's."""

from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from pipeline.detectors.outputs import box_overlaps, decode_outputs, suppress_overlaps
from pipeline.detectors.settings import DetectorSettings
from pipeline.errors import ConfigError

SIZE_HW = (64, 96)
BOXES = np.array([[10.0, 20.0, 30.0, 60.0], [40.0, 4.0, 90.0, 44.0]])
SCORES = np.array([0.9, 0.6])
OTHER_CLASS = np.array([0.1, 0.3])


def raw_rows() -> np.ndarray[Any, Any]:
    """The boxes as YOLO has them: (4 + C, N), centre and size, many empty anchors behind."""
    centre, size = (BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]
    rows = np.zeros((6, 20))
    rows[:, :2] = np.concatenate([centre, size, SCORES[:, None], OTHER_CLASS[:, None]], 1).T
    rows[2:4, 2:] = 1
    return rows


def maps(with_offsets: bool, activation: bool = False) -> dict[str, Any]:
    """The boxes as CenterNet has them, at stride 4: heat, size in cells, offset in cells."""
    heat, size, offset = (
        np.zeros((1, 3, 16, 24)),
        np.zeros((1, 2, 16, 24)),
        np.zeros((1, 2, 16, 24)),
    )
    for box, score in zip(BOXES, SCORES, strict=True):
        centre, extent = (box[:2] + box[2:]) / 2 / 4, (box[2:] - box[:2]) / 4
        x, y = np.floor(centre).astype(int)
        heat[0, 1, y, x], heat[0, 1, y, x + 1] = score, score / 2  # the neighbour is no maximum
        size[0, :, y, x], offset[0, :, y, x] = extent, centre - (x, y)
    if activation:
        heat = np.log(np.maximum(heat, 1e-9) / (1 - heat))
    found = {"heat": heat, "size": size, "offset": offset}
    return found if with_offsets else {name: found[name] for name in ("heat", "size")}


LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "boxes and scores": ({"boxes": BOXES[None], "scores": SCORES[None]}, {}),
    "in any order": ({"scores": SCORES[None], "boxes": BOXES[None]}, {}),
    "torchvision": (
        {
            "boxes": np.concatenate([BOXES, BOXES[:1]]),
            "labels": np.array([1, 1, 17]),
            "scores": np.array([*SCORES, 0.99]),
        },
        {"person_class": 1},
    ),
    "scores of classes": (
        {"boxes": BOXES[None], "scores": np.stack([OTHER_CLASS, SCORES], 1)[None]},
        {"person_class": 1},
    ),
    "five columns": ({"dets": np.concatenate([BOXES, SCORES[:, None]], 1)[None]}, {}),
    "five columns and labels": (
        {
            "dets": np.concatenate([BOXES, SCORES[:, None]], 1)[None],
            "labels": np.array([[0, 0]]),
        },
        {},
    ),
    "six columns": (
        {
            "output": np.concatenate(
                [
                    np.concatenate([BOXES, SCORES[:, None], np.zeros((2, 1))], 1),
                    [[0, 0, 9, 9, 0.8, 5]],
                ]
            )[None]
        },
        {},
    ),
    "raw": ({"output0": raw_rows()[None]}, {}),
    "fractions": (
        {"boxes": BOXES[None] / (96, 64, 96, 64), "scores": SCORES[None]},
        {"box_unit": "fraction"},
    ),
    "corner and size": (
        {
            "boxes": np.concatenate([BOXES[:, :2], BOXES[:, 2:] - BOXES[:, :2]], 1)[None],
            "scores": SCORES[None],
        },
        {"box_format": "xywh"},
    ),
    "maps with offsets": (maps(True), {"person_class": 1}),
    "maps of logits": (
        maps(True, activation=True),
        {"person_class": 1, "heat_activation": "sigmoid"},
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_people(name: str) -> None:
    outputs, settings = LAYOUTS[name]
    boxes, scores = decode_outputs(outputs, SIZE_HW, DetectorSettings(**settings))
    is_found = scores > 0.5
    np.testing.assert_allclose(boxes[is_found], BOXES, atol=1e-9)
    np.testing.assert_allclose(scores[is_found], SCORES)


def test_one_person_without_a_batch_is_one_row() -> None:
    outputs = {"boxes": BOXES[:1], "scores": SCORES[:1]}
    boxes, scores = decode_outputs(outputs, SIZE_HW, DetectorSettings())
    np.testing.assert_array_equal(boxes, BOXES[:1])
    np.testing.assert_array_equal(scores, SCORES[:1])


def test_without_offsets_a_centre_lies_in_the_middle_of_its_cell() -> None:
    boxes, scores = decode_outputs(maps(False), SIZE_HW, DetectorSettings(person_class=1))
    found = boxes[scores > 0.5]
    centres = (found[:, :2] + found[:, 2:]) / 2
    np.testing.assert_allclose(centres, [[22, 42], [66, 26]])


@pytest.mark.parametrize(
    "outputs",
    [
        {"logits": np.zeros((1, 1000))},
        {"features": np.zeros((1, 64, 8, 8))},
        {"boxes": np.zeros((2, 7, 4)), "scores": np.zeros((2, 7))},
        {"score": np.zeros(3)},
        {"boxes": np.zeros((1, 7, 4))},
    ],
)
def test_unknown_outputs_are_refused_with_their_shapes(outputs: dict[str, Any]) -> None:
    (name, value) = next(iter(outputs.items()))
    with pytest.raises(
        ConfigError, match=rf"are {name} \(.*{value.shape[-1]},?\).*; expected boxes"
    ):
        decode_outputs(outputs, SIZE_HW, DetectorSettings())


def test_a_class_that_the_detector_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="person_class is 5, but the detector has 2 classes"):
        decode_outputs(LAYOUTS["raw"][0], SIZE_HW, DetectorSettings(person_class=5))


def test_overlaps_and_their_suppression_are_torchvisions() -> None:
    random = np.random.default_rng(2)
    corner = random.uniform(0, 60, (50, 2))
    boxes = np.concatenate([corner, corner + random.uniform(5, 40, (50, 2))], axis=1)
    scores = random.uniform(0, 1, 50)
    expected = torchvision.ops.box_iou(torch.from_numpy(boxes), torch.from_numpy(boxes))
    np.testing.assert_allclose(box_overlaps(boxes, boxes), expected, atol=1e-12)
    for overlap in (0.1, 0.3, 0.6):
        kept = torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), overlap)
        assert suppress_overlaps(boxes, scores, overlap).tolist() == kept.tolist()
