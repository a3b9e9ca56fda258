"""DistilPose's presets are the recipe of its paper and released code (arXiv 2303.02455)."""

from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.training.settings import ReplayedViewSettings
from stages import preset_file
from stages.settings.training import TrainStudentConfig, TrainTeacherConfig

STUDENT_LOSSES = {
    "regression": 1.0,
    "simulated_heatmap": 1.0,
    "confidence": 0.01,
    "keypoint_token": 5e-4,
    "visual_token": 5e-4,
}
RELEASED_VIEWS = {
    "padding": 1.25,
    "flip_probability": 0.5,
    "half_body_probability": 0.3,
    "rotation_probability": 0.6,
    "shift_factor": 0.2,
    "shift_probability": 0.3,
}


def student(name: str, **settings: object) -> TrainStudentConfig:
    fields = {"store": Path("teacher.zarr"), "images": Path("images"), **settings}
    return load_config(TrainStudentConfig, preset=preset_file(name), fields=fields)


def teacher(name: str) -> TrainTeacherConfig:
    fields = {"annotations": Path("people.json"), "images": Path("images")}
    return load_config(TrainTeacherConfig, preset=preset_file(name, "teacher"), fields=fields)


def weights(config: TrainStudentConfig) -> dict[str, float]:
    return {name: getattr(config.loss, name) for name in config.loss.terms}


def require_released_schedule(config: TrainStudentConfig | TrainTeacherConfig) -> None:
    """Compare with 300 epochs of Adam at 1e-3, x 0.1 at epochs 200 and 260, 500 steps warm-up."""
    found = config.optimisation
    assert (config.epochs, found.batch_size, found.warmup_steps) == (300, 256, 500)
    assert (found.optimizer, found.learning_rate, found.weight_decay) == ("adam", 1e-3, 0.0)
    assert (found.schedule, found.decay_rate) == ("step", 0.1)
    assert [round(300 * place, 6) for place in found.decay_at] == [200, 260]
    assert (found.gradient_clip, found.average_decay, found.micro_batch) == (0, 0, None)


@pytest.mark.parametrize(("name", "parts"), [("distilpose-s", None), ("distilpose-l", "backbone")])
def test_a_students_preset_is_the_released_recipe(name: str, parts: str | None) -> None:
    config = student(name, **{"data.view_policy": "replay"})
    require_released_schedule(config)
    assert config.architecture == name
    assert weights(config) == STUDENT_LOSSES
    assert config.loss.regression_kind == "smooth_l1"
    assert (config.loss.sigma_floor, config.loss.distillation_warmup_steps) == (0, 0)
    assert isinstance(config.data, ReplayedViewSettings)
    assert config.data.change_nothing
    if parts is not None:  # the backbone of L starts from the teacher's, S from random weights
        assert config.initial.parts == (parts,)


def test_the_default_preset_is_that_of_s_without_its_token_losses() -> None:
    released = student("distilpose-s")
    plain = {**released.loss.model_dump(), "keypoint_token": 0.0, "visual_token": 0.0}
    given = student("distilpose-s-no-tokens")
    assert given.model_dump() == {**released.model_dump(), "loss": plain}


@pytest.mark.parametrize("architecture", ["tokenpose-s", "tokenpose-hrnet48"])
def test_a_teachers_preset_is_the_released_recipe(architecture: str) -> None:
    config = teacher(f"{architecture}-teacher")
    require_released_schedule(config)
    assert config.architecture == architecture
    assert (config.heatmap_frame, config.heatmap_sigma) == ("msra", 2.0)
    views = config.data.recipe.model_dump()
    assert views == {**RELEASED_VIEWS, "scale_factor": 0.5, "rotation_degrees": 40.0}


def test_the_views_of_a_store_are_those_of_the_released_students() -> None:
    views = student("distilpose-l", **{"data.view_policy": "carry"}).data
    recipe = getattr(views, "recipe").model_dump()  # noqa: B009 - a union knows no such field
    assert recipe == {**RELEASED_VIEWS, "scale_factor": 0.35, "rotation_degrees": 45.0}
