"""Every shipped preset is a whole, valid configuration of the stage it is for."""

from pathlib import Path

import pytest
import torch

from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.models import build_network
from pipeline.models.pose_networks import RegressionStudent, TokenPoseTeacher
from stages import PRESETS, preset_file
from stages.settings.training import TrainStudentConfig, TrainTeacherConfig

ALL = sorted(path.stem for path in PRESETS.glob("*.toml"))
TEACHERS = [name for name in ALL if name.endswith("-teacher")]
STUDENTS = [name for name in ALL if name not in TEACHERS]


@pytest.mark.parametrize("name", STUDENTS)
def test_a_students_preset_loads_and_builds_a_student(name: str) -> None:
    fields = {"store": Path("teacher.zarr"), "images": Path("images")}
    config = load_config(TrainStudentConfig, preset=preset_file(name), fields=fields)
    with torch.device("meta"):
        assert isinstance(build_network(config.architecture, 17), RegressionStudent)


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teachers_preset_loads_and_builds_a_teacher(name: str) -> None:
    fields = {"annotations": Path("people.json"), "images": Path("images")}
    config = load_config(TrainTeacherConfig, preset=preset_file(name, "teacher"), fields=fields)
    with torch.device("meta"):
        assert isinstance(build_network(config.architecture, 17), TokenPoseTeacher)


def test_a_path_is_no_preset() -> None:
    with pytest.raises(ConfigError, match=r"no preset '\.\./presets/demo'"):
        preset_file("../presets/demo")
