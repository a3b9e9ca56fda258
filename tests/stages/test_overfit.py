"""A small student learns 94 real people by heart, through the whole path: proof of the plumbing.

Nothing between the annotation and the AP may be off by more than the student can make up for: the
views of the store, their decoding, the keypoints' way into the crop and back, and the scores.
"""

from pathlib import Path

import pytest

from pipeline.caching.settings import CacheTeacherConfig
from pipeline.settings import StoredPeopleSettings, TeacherSettings, ViewRecipe
from pipeline.training.settings import (
    InitialWeights,
    LossConfig,
    OptimisationConfig,
    ReplayedViewSettings,
)
from stages.cache_teacher import cache_teacher
from stages.demo import TEACHER as DEMO_TEACHER
from stages.evaluate import evaluate
from stages.settings.evaluation import EvaluateRun
from stages.settings.training import TrainStudentConfig
from stages.train_student import train_student

# Nearly the evaluation crop: 94 people are too few to learn other views of them from eight.
NEARLY_PLAIN = ViewRecipe(
    flip_probability=0,
    half_body_probability=0,
    scale_factor=0.03,
    rotation_degrees=3,
    shift_factor=0.01,
)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.timeout(1500)
def test_a_small_student_overfits_the_people_of_a_store(
    shared_folder: Path, tmp_path: Path
) -> None:
    sample = shared_folder / "data" / "coco_sample"
    annotations, images = sample / "person_keypoints.json", sample / "images"
    cache_teacher(
        CacheTeacherConfig(
            annotations=annotations,
            images=images,
            teacher=shared_folder / "teachers" / "ultralight_simplepose_256x192.onnx",
            teacher_settings=TeacherSettings(),
            store=tmp_path / "teacher.zarr",
            views=8,
            recipe=NEARLY_PLAIN,
            people=StoredPeopleSettings(only_labelled=True),
        )
    )
    train_student(
        TrainStudentConfig(
            architecture="distilpose-xs",
            store=tmp_path / "teacher.zarr",
            images=images,
            data=ReplayedViewSettings(),
            # The teacher itself reaches 0.44 AP on these people: here the truth has to lead.
            loss=LossConfig(regression=0.1, regression_kind="l1", simulated_heatmap=0.02),
            optimisation=OptimisationConfig(
                optimizer="adamw", batch_size=47, schedule="cosine", warmup_steps=50
            ),
            initial=InitialWeights(weights=DEMO_TEACHER),
            epochs=520,
            num_loader_workers=0,
        ),
        tmp_path / "run",
    )
    result = evaluate(
        EvaluateRun(
            run_folder=tmp_path / "run", annotations=annotations, images=images, flip_test=False
        )
    )
    average_precision = result.report.row.own_score.AP
    assert average_precision is not None
    assert average_precision >= 0.9
