"""AP of the shared teacher against the figures of another implementation."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.settings import PeopleSettings, TeacherSettings
from stages.evaluate import evaluate
from stages.settings.evaluation import EvaluateTeacher


@pytest.mark.shared
@pytest.mark.parametrize(
    ("settings", "flip_test", "threshold", "expected", "tolerance"),
    [
        ({"flip_shift": 0, "decoding": "quarter"}, True, None, (0.436, 0.747, 0.465), 0.003),
        ({"decoding": "quarter"}, False, 0.2, (0.436, 0.712, 0.476), 0.003),
        ({}, True, 0.2, (0.443, 0.735, 0.486), 0.006),
    ],
)
def test_the_shared_teacher_has_the_figures_of_another_implementation(
    shared_folder: Path,
    settings: dict[str, Any],
    flip_test: bool,
    threshold: float | None,
    expected: tuple[float, float, float],
    tolerance: float,
) -> None:
    """coco_sample, ground-truth boxes unclipped, padding 1.25, frame msra, no NMS."""
    config = EvaluateTeacher(
        teacher=shared_folder / "teachers/ultralight_simplepose_256x192.onnx",
        annotations=shared_folder / "data/coco_sample/person_keypoints.json",
        images=shared_folder / "data/coco_sample/images",
        people=PeopleSettings(clip_boxes=False),
        teacher_settings=TeacherSettings(**settings),
        flip_test=flip_test,
        keypoint_threshold=threshold,
    )
    figures = evaluate(config).report.row.own_score
    found = (figures.AP, figures.AP50, figures.AR)
    assert found == pytest.approx(expected, abs=tolerance)
