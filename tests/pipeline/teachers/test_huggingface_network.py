"""What is read from a model of transformers; the library itself is replaced by a stand-in."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import TeacherError
from pipeline.settings import IMAGENET_MEAN, IMAGENET_STD, TeacherSettings
from pipeline.teachers import Teacher, huggingface_network, open_teacher

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
PROCESSOR = {"image_mean": MEAN, "image_std": STD, "rescale_factor": 1 / 128}
WHOLE: dict[str, Any] = {"missing_keys": (), "mismatched_keys": (), "unexpected_keys": ()}


class Pooling(torch.nn.Module):
    """Heatmaps of 3 keypoints: the channels, averaged over cells of 4 x 4 pixels, and scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        heatmaps = torch.nn.functional.avg_pool2d(pixel_values, 4) * self.weight
        return SimpleNamespace(heatmaps=heatmaps)


class StandIn:
    """The parts of transformers that are used, and what was asked of them."""

    def __init__(self, **changes: Any) -> None:
        backbone = {"image_size": [64, 48], "num_hidden_layers": 2, "hidden_size": 24,
                    "num_experts": changes.get("num_experts", 1)}  # fmt: skip
        config = SimpleNamespace(
            model_type=changes.get("model_type", "vitpose"),
            use_simple_decoder=True,
            backbone_config=SimpleNamespace(**backbone),
        )
        info = {**WHOLE, **changes.get("info", {})}
        processor = changes.get("processor", PROCESSOR)
        self.asked: list[tuple[str, str | None]] = []
        self.AutoConfig = self._loader(config)
        self.VitPoseForPoseEstimation = self._loader((Pooling(), info))
        self.ImageProcessingMixin = self._loader((processor, {}))
        self.verbosity: list[object] = []
        self.logging = SimpleNamespace(
            get_verbosity=lambda: 30,
            is_progress_bar_enabled=lambda: True,
            set_verbosity_error=lambda: self.verbosity.append("error"),
            disable_progress_bar=lambda: self.verbosity.append("no bar"),
            set_verbosity=self.verbosity.append,
            enable_progress_bar=lambda: self.verbosity.append("bar"),
        )

    def _loader(self, result: Any) -> SimpleNamespace:
        def load(source: str, *, revision: str | None = None, **_: Any) -> Any:
            self.asked.append((source, revision))
            if isinstance(result, tuple) and result[0] is None:
                raise OSError("no such file")
            return result

        return SimpleNamespace(from_pretrained=load, get_image_processor_dict=load)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vitpose"}))
    return tmp_path


def opened(
    monkeypatch: pytest.MonkeyPatch, path: Path, stand_in: StandIn | None = None, **settings: Any
) -> Teacher:
    library = stand_in or StandIn()
    monkeypatch.setattr(huggingface_network, "_transformers", lambda _: library)
    return open_teacher(path, TeacherSettings(batch_size=2, num_threads=1, **settings))


def test_the_identity_states_network_frame_and_pixels(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    teacher = opened(monkeypatch, folder)
    identity = teacher.identity()
    stated = {
        "kind": "huggingface", "num_keypoints": 3, "input_size_hw": [64, 48],
        "architecture": "VitPoseForPoseEstimation, 2 layers of 24, simple head",
        "heatmap_size_hw": [16, 12], "heatmap_frame": "udp", "flip_shift": 0, "mean": MEAN,
        "std": STD, "scale": 1 / 128,
    }  # fmt: skip
    assert {name: identity[name] for name in stated} == stated
    assert teacher.notes == ()


def test_heatmaps_are_those_of_the_normalised_pixels(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 48, 3), np.uint8)
    pixels = ((crops / 128 - MEAN) / STD).transpose(0, 3, 1, 2)
    expected = 2 * pixels.reshape(3, 3, 16, 4, 12, 4).mean(axis=(3, 5))
    found = opened(monkeypatch, folder).predict_heatmaps(crops)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"image_mean": MEAN, "image_std": STD}, (tuple(MEAN), tuple(STD), 1 / 255)),
        ({**PROCESSOR, "do_rescale": False}, (tuple(MEAN), tuple(STD), 1.0)),
        ({**PROCESSOR, "do_normalize": False}, ((0, 0, 0), (1, 1, 1), 1 / 128)),
        ({}, (IMAGENET_MEAN, IMAGENET_STD, 1 / 255)),
    ],
)
def test_pixels_are_normalised_as_the_processor_is_set(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    processor: dict[str, Any],
    expected: tuple[object, ...],
) -> None:
    settings = opened(monkeypatch, folder, StandIn(processor=processor)).settings
    assert (settings.mean, settings.std, settings.scale) == expected


def test_without_a_processor_the_pixels_are_imagenets_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    teacher = opened(monkeypatch, folder, StandIn(processor=None))
    assert (teacher.settings.mean, teacher.settings.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert teacher.notes == (
        f"{folder} has no preprocessor_config.json: pixels are normalised with mean and std of "
        "ImageNet",
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mean": (0.1, 0.1, 0.1)}, r"mean is \(0\.1, .* but .* has \(0\.4, 0\.5, 0\.6\)"),
        ({"input_size_hw": (256, 192)}, r"input_size_hw is \(256, 192\) but .* has \(64, 48\)"),
        ({"architecture": "hrnet-w32"}, r"architecture is hrnet-w32, but .* states its network"),
    ],
)
def test_settings_that_contradict_the_folder_are_refused(
    monkeypatch: pytest.MonkeyPatch, folder: Path, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(TeacherError, match=message):
        opened(monkeypatch, folder, **setting)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": 6}, r"is a ViTPose\+ with 6 experts, one for each data set; .* ONNX"),
        ({"model_type": "vit"}, "is a model of type vit; expected vitpose, the type of VitPose"),
        (
            {"info": {"missing_keys": {"b", "a"}}},
            "has not all tensors of its network: a is missing, b is missing; give a whole",
        ),
        (
            {"info": {"mismatched_keys": [("c", (1,), (2,))]}},
            "has not all tensors of its network: c has another shape; give a whole",
        ),
    ],
)
def test_other_models_and_parts_of_models_are_refused(
    monkeypatch: pytest.MonkeyPatch, folder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TeacherError, match=message):
        opened(monkeypatch, folder, StandIn(**changes))


def test_unused_tensors_are_noted(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    teacher = opened(monkeypatch, folder, StandIn(info={"unexpected_keys": {"loss.weight"}}))
    assert teacher.notes == (
        f"tensor loss.weight of {folder} not used by {teacher.network.architecture}",
    )


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("hf:owner/vitpose", ("owner/vitpose", None)),
        ("hf:owner/vitpose@abc123", ("owner/vitpose", "abc123")),
    ],
)
def test_a_model_of_the_hub_is_asked_for_by_name_and_revision(
    monkeypatch: pytest.MonkeyPatch, name: str, asked: tuple[str, str | None]
) -> None:
    library = StandIn()
    opened(monkeypatch, Path(name), library)
    assert library.asked == [asked] * 3


def test_the_library_logs_and_draws_as_before_once_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    library = StandIn()
    opened(monkeypatch, folder, library)
    assert library.verbosity == ["error", "no bar", 30, "bar"]


def test_what_cannot_be_loaded_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    library = StandIn()
    library.AutoConfig = library._loader((None,))
    with pytest.raises(TeacherError, match=r"transformers cannot load .*: no such file; give the"):
        opened(monkeypatch, folder, library)


def test_without_transformers_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def missing(_: str) -> None:
        raise ImportError

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(TeacherError, match=r"install the extra huggingface \(uv sync"):
        open_teacher(folder, TeacherSettings())


def test_a_run_folder_is_no_model_of_transformers(tmp_path: Path) -> None:
    """Both have a config.json."""
    from pipeline.teachers.opening import is_huggingface_folder

    assert not is_huggingface_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"student": "distilpose-xs"}))
    assert not is_huggingface_folder(tmp_path)
    (tmp_path / "config.json").write_text("torn {")
    assert not is_huggingface_folder(tmp_path)
