"""Which settings of ``distil evaluate`` contradict each other."""

from typing import Any

import pytest

from pipeline.errors import ConfigError
from stages.settings.evaluation import EvaluateWeights, evaluation_of

NETWORKS = "run_folder, weights, student and teacher"
WITH_STORE = "run_folder, weights, student, teacher and store"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing to evaluate is given; give exactly one of run_folder, weights"),
        ({"store": "s", "teacher": "t"}, "teacher and store are given; give exactly one of"),
        (
            {"weights": "w", "annotations": None, "images": "i"},
            "weights needs annotations, the COCO file",
        ),
        ({"run_folder": "r"}, "run_folder needs images, the folder of the annotated images"),
        (
            {"predictions": "p", "images": "i"},
            f"images has no effect with predictions, only with {NETWORKS}; leave it out",
        ),
        (
            {"store": "s", "detections": "d"},
            f"detections has no effect with store, only with {NETWORKS}; leave it out",
        ),
        (
            {"store": "s", "padding": 1.5},
            f"padding has no effect with store, only with {NETWORKS}; leave it out",
        ),
        (
            {"store": "s", "flip_test": False},
            f"flip_test has no effect with store, only with {NETWORKS}; leave it out",
        ),
        (
            {"weights": "w", "images": "i", "teacher_settings": {"decoding": "argmax"}},
            "teacher_settings has no effect with weights, only with teacher; leave it out",
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
            f"keypoint_threshold has no effect with predictions, only with {WITH_STORE}",
        ),
        (
            {"store": "s", "annotations": None, "people": {"clip_boxes": False}},
            "the settings of people have no effect with --store alone, whose own people count",
        ),
        ({"predictions": "p", "min_ap": 60}, "the setting min_ap is 60: Input should be less"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluation_of({"annotations": "a.json", **settings})


def test_a_threshold_can_be_turned_off_where_only_text_can_be_given() -> None:
    settings = {"weights": "w", "annotations": "a", "images": "i", "keypoint_threshold": "none"}
    config = evaluation_of(settings)
    assert isinstance(config, EvaluateWeights)
    assert config.keypoint_threshold is None
    with_threshold = evaluation_of({**settings, "keypoint_threshold": "0.2"})
    assert isinstance(with_threshold, EvaluateWeights)
    assert with_threshold.keypoint_threshold == 0.2
    settings.pop("keypoint_threshold")
    assert evaluation_of(settings) == config
