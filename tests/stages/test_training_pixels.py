"""Networks get the same pixels in training and validation: RGB, ImageNet's mean subtracted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from pipeline.config import load_config
from pipeline.models.pose_networks import PoseNetwork
from stages.cache_teacher import cache_teacher
from stages.settings.training import TrainStudentConfig, TrainTeacherConfig
from stages.train_student import train_student
from stages.train_teacher import train_teacher

ORANGE = (250, 130, 20)
COMMON: dict[str, object] = {
    "epochs": 1,
    "num_loader_workers": 0,
    "num_threads": 1,
    "device": "cpu",
    "optimisation.batch_size": 4,
}


@pytest.fixture
def orange(inputs: Any) -> Any:
    """People whose images are all of one colour, without loss."""
    for path in inputs.images.iterdir():
        with Image.open(path) as image:
            size = image.size
        Image.new("RGB", size, ORANGE).save(path, "PNG")
    return inputs


@pytest.fixture
def given() -> Iterator[list[tuple[bool, Tensor]]]:
    """Whether each call of a pose network is in training, and its input (B, 3, H, W)."""
    inputs: list[tuple[bool, Tensor]] = []

    def keep(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if isinstance(module, PoseNetwork):
            inputs.append((module.training, arguments[0].detach().clone()))

    hook = register_module_forward_pre_hook(keep)
    yield inputs
    hook.remove()


def require_orange(given: list[tuple[bool, Tensor]]) -> None:
    """The centre of a crop lies inside its image; the JPEG of a stored crop is a level off."""
    levels, mean, std = map(torch.tensor, (ORANGE, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    expected = (levels / 255 - mean) / std
    for _, images in given:
        height, width = images.shape[2:]
        pixels = images[:, :, height // 2, width // 2]
        torch.testing.assert_close(pixels, expected.expand_as(pixels), rtol=0, atol=0.04)


def test_a_student_gets_rgb_less_the_mean_in_training_and_validation(
    orange: Any, given: list[tuple[bool, Tensor]], tmp_path: Path
) -> None:
    fields = {**COMMON, "architecture": "distilpose-xs", "distillation": False}
    fields |= {"annotations": orange.annotations, "images": orange.images}
    fields |= {"val_annotations": orange.annotations}
    train_student(load_config(TrainStudentConfig, fields=fields), tmp_path / "run")
    assert {is_training for is_training, _ in given} == {True, False}
    require_orange(given)


def test_a_student_gets_rgb_less_the_mean_from_the_crops_of_a_store(
    orange: Any, given: list[tuple[bool, Tensor]], tmp_path: Path
) -> None:
    cache_teacher(orange.config(crops=True, views=1))
    fields = {**COMMON, "architecture": "distilpose-xs"}
    fields |= {"store": str(orange.store), "data.from_crops": True}
    train_student(load_config(TrainStudentConfig, fields=fields), tmp_path / "run")
    assert given
    require_orange(given)


def test_a_teacher_gets_rgb_less_the_mean_in_training(
    orange: Any, given: list[tuple[bool, Tensor]], tmp_path: Path
) -> None:
    fields = {**COMMON, "annotations": orange.annotations, "images": orange.images}
    fields |= {"architecture": "tokenpose-xs"}
    train_teacher(load_config(TrainTeacherConfig, fields=fields), tmp_path / "run")
    assert given
    require_orange(given)
