"""Which settings of ``distil evaluate`` contradict each other."""

from typing import Any

import pytest

from pipeline.config import validate_config
from pipeline.errors import ConfigError
from stages.settings.evaluation import EvaluateConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing to evaluate is given; give exactly one of run_folder, weights, teacher"),
        ({"store": "s", "teacher": "t"}, "teacher and store are given; give exactly one of"),
        (
            {"weights": "w", "annotations": None, "images": "i"},
            "weights needs annotations; give the COCO file",
        ),
        ({"run_folder": "r"}, "run_folder needs images; give the folder of the annotated images"),
        ({"predictions": "p", "images": "i"}, "images has no effect with predictions: its poses"),
        ({"store": "s", "detections": "d"}, "detections has no effect with store: its poses are"),
        ({"store": "s", "padding": 1.5}, "padding has no effect with store: its poses are made"),
        ({"store": "s", "flip_test": False}, "flip_test has no effect with store: its poses are"),
        (
            {"weights": "w", "images": "i", "teacher_settings": {"decoding": "argmax"}},
            "teacher_settings has no effect with weights: they are for a teacher; leave it out",
        ),
        (
            {
                **{"teacher": "t", "images": "i", "flip_test": False},
                "teacher_settings": {"flip_test": True},
            },
            "teacher_settings.flip_test contradicts flip_test; set flip_test only",
        ),
        (
            {"predictions": "p", "keypoint_threshold": "none"},
            "keypoint_threshold has no effect with predictions: its poses have their score",
        ),
        (
            {"store": "s", "annotations": None, "people": {"clip_boxes": False}},
            "people has no effect with store: without annotations the store's own people count",
        ),
        ({"predictions": "p", "min_ap": 60}, "the setting min_ap is 60: Input should be less"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        validate_config(EvaluateConfig, {"annotations": "a.json", **settings})


def test_a_threshold_can_be_turned_off_where_only_text_can_be_given() -> None:
    settings = {"weights": "w", "annotations": "a", "images": "i", "keypoint_threshold": "none"}
    assert validate_config(EvaluateConfig, settings).keypoint_threshold is None
