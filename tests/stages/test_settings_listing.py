"""Laws of the list of settings: complete, true to the models, and understood by --set."""

import json
import tomllib
from typing import Any

import pytest
from click.testing import CliRunner

from cli import main
from pipeline.caching.settings import CacheTeacherConfig
from pipeline.config import StageConfig, load_config
from pipeline.errors import ConfigError
from stages import preset_file
from stages.settings.evaluation import CompareConfig, EvaluateTeacher, StoreVerifyConfig
from stages.settings.export import ExportConfig
from stages.settings.listing import list_settings
from stages.settings.pictures import ShowAttentionConfig, ShowConfig, ShowStudentConfig
from stages.settings.prediction import PredictConfig
from stages.settings.training import TrainStudentConfig, TrainTeacherConfig

STAGES: list[type[StageConfig]] = [
    *(CacheTeacherConfig, TrainStudentConfig, TrainTeacherConfig, EvaluateTeacher, CompareConfig),
    *(ExportConfig, PredictConfig, ShowConfig, ShowStudentConfig, ShowAttentionConfig),
    StoreVerifyConfig,
]
GIVEN: dict[str, Any] = {"store": "s", "images": "i"}


def listed(*words: str) -> str:
    result = CliRunner().invoke(main, ["settings", *words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("stage", STAGES)
def test_every_setting_has_a_meaning_and_values(stage: type[StageConfig]) -> None:
    for line in list_settings(stage):
        assert line.meaning.endswith("."), line
        assert "any" not in line.values.split(), line


def test_set_knows_every_listed_name_and_refuses_what_its_values_leave_out() -> None:
    lines = list(list_settings(TrainStudentConfig))
    assert len(lines) == len({(line.name, line.only_where) for line in lines}) > 70
    for name, policy in ((line.name, line.only_where.rpartition(" ")[2]) for line in lines):
        policy = policy if policy not in ("", "annotations") else "carry"
        fields = {**GIVEN, "data.view_policy": policy, name: object()}
        with pytest.raises(ConfigError) as refusal:
            load_config(TrainStudentConfig, fields=fields)
        assert "unknown" not in str(refusal.value)
        if name != "data.view_policy":
            assert f"the setting {name}" in str(refusal.value)


@pytest.mark.parametrize(
    ("stage", "given"),
    [
        (TrainStudentConfig, GIVEN),
        (TrainTeacherConfig, {"annotations": "a", "images": "i"}),
        (CacheTeacherConfig, {"annotations": "a", "images": "i", "teacher": "t", "store": "s"}),
    ],
)
def test_the_listed_defaults_are_those_of_settings_that_are_not_given(
    stage: type[StageConfig], given: dict[str, str]
) -> None:
    config = load_config(stage, fields=given)
    num_compared = 0
    for line in list_settings(stage):
        found: Any = config
        for name in line.name.split("."):
            found = getattr(found, name, None)
        if line.default is not None and found is not None:
            if isinstance(found, tuple):
                found = list(found)
            assert line.default == (found if isinstance(found, str) else json.dumps(found)), line
            num_compared += 1
    assert num_compared > 20


def test_values_bounds_and_defaults_are_the_models() -> None:
    lines = {line.name: line for line in list_settings(TrainStudentConfig)}
    config = load_config(TrainStudentConfig, fields=GIVEN)
    assert lines["optimisation.average_decay"].values == "number at least 0 and below 1"
    assert lines["optimisation.decay_rate"].values == "number above 0 and at most 1"
    assert lines["optimisation.schedule"].values == "step | cosine | constant"
    assert lines["num_threads"].values == "whole number at least 1 and at most 1024 or none"
    assert lines["people.skeleton.flip_pairs"].values == "list of [text, text] or none"
    assert lines["data.from_crops"].only_where.startswith("data.view_policy = carry or ")
    assert lines["data.image_cache_mib"].only_where == ""
    assert lines["loss.confidence"].default == str(config.loss.confidence)
    assert lines["optimisation.optimizer"].default == config.optimisation.optimizer
    of_teacher = {line.name: line for line in list_settings(CacheTeacherConfig)}
    assert of_teacher["annotations"].is_required
    assert not of_teacher["views"].is_required
    assert of_teacher["views"].default == "8"


def test_the_command_names_options_and_a_presets_values() -> None:
    plain, preset = listed("train-student"), listed("train-student", "--preset", "distilpose-xs")
    assert "optimisation.learning_rate  --learning-rate\n    number above 0; default 0.001" in plain
    wanted = tomllib.loads(preset_file("distilpose-xs").read_text())["optimisation"]["batch_size"]
    assert f"at least 1 and at most 65536 or none; default {wanted}" in preset
    assert "annotations  --annotations\n    path; must be given" in listed("cache-teacher")
    assert "sample  --sample" in listed("store", "verify")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "there is no command nope"),
        (["store"], "name one command of the group: store info, store verify"),
        (["demo"], "demo has no settings"),
    ],
)
def test_a_command_without_settings_is_refused(words: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["settings", *words])
    assert result.exit_code == 2
    assert said in result.output
