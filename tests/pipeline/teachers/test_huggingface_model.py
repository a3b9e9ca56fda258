"""ViTPose of transformers as a teacher, on a tiny one that the test makes."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from pipeline.errors import TeacherError
from pipeline.frames.geometry import apply, invert
from pipeline.settings import TeacherSettings
from pipeline.teachers import Teacher, open_teacher

pytestmark = pytest.mark.slow

SIZE_HW, CELLS_HW = (64, 48), (16, 12)
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]


def write_model(folder: Path, simple: bool = True, num_experts: int = 1) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    backbone = transformers.VitPoseBackboneConfig(
        image_size=SIZE_HW, patch_size=(16, 16), hidden_size=24, num_hidden_layers=2,
        num_attention_heads=3, mlp_ratio=2, num_experts=num_experts, part_features=4,
        out_indices=[2], layer_norm_eps=1e-6,
    )  # fmt: skip
    config = transformers.VitPoseConfig(
        backbone_config=backbone, use_simple_decoder=simple, num_labels=17
    )
    model = transformers.VitPoseForPoseEstimation(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    processor = transformers.VitPoseImageProcessor(
        image_mean=MEAN, image_std=STD, size={"height": SIZE_HW[0], "width": SIZE_HW[1]}
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("vitpose"))


@pytest.fixture
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, *SIZE_HW, 3), np.uint8)


def opened(path: Path, **settings: Any) -> Teacher:
    return open_teacher(path, TeacherSettings(batch_size=2, num_threads=1, **settings))


@pytest.mark.parametrize("simple", [True, False])
def test_heatmaps_are_those_of_the_model_after_its_own_processor(
    simple: bool, tmp_path: Path, crops: NDArray[np.uint8]
) -> None:
    write_model(tmp_path, simple)
    transformers = importlib.import_module("transformers")
    processor = transformers.VitPoseImageProcessor.from_pretrained(tmp_path)
    model = transformers.VitPoseForPoseEstimation.from_pretrained(tmp_path).eval()
    pixels = processor(list(crops), boxes=[[[0, 0, 1, 1]]] * 3, do_affine_transform=False,
                       return_tensors="pt")  # fmt: skip
    with torch.inference_mode():
        expected = model(**pixels).heatmaps.numpy()
    assert expected.std() > 0.01
    found = opened(tmp_path).predict_heatmaps(crops)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_the_frame_is_that_of_the_processors_warp_and_decoding(folder: Path) -> None:
    """A cell decodes to the pixel of the crop that the image's point is warped to."""
    processing = importlib.import_module("transformers.models.vitpose.image_processing_vitpose")
    centre, scale = processing.box_to_center_and_scale((30, 20, 40, 90), *SIZE_HW[::-1])
    cells = np.array([[3.0, 4.0], [1.0, 13.0], [10.0, 2.0], [6.25, 8.5]])
    in_image = processing.transform_preds(cells, centre, scale, CELLS_HW)
    warp = processing.get_warp_matrix(
        0.0, centre * 2.0, np.array(SIZE_HW[::-1]) - 1.0, scale * 200.0
    )
    teacher = opened(folder)
    expected = apply(warp.astype(np.float64), in_image)
    np.testing.assert_allclose(apply(invert(teacher.crop_to_heatmap), cells), expected, atol=1e-4)


def test_one_bit_of_a_weight_changes_the_sha256(folder: Path, tmp_path: Path) -> None:
    for file in ("config.json", "preprocessor_config.json"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    assert opened(tmp_path).network.sha256 == opened(folder).network.sha256
    next(iter(tensors.values())).view(torch.int32).view(-1)[0] ^= 1
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    assert opened(tmp_path).network.sha256 != opened(folder).network.sha256


def test_experts_and_other_models_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path, num_experts=6)
    with pytest.raises(TeacherError, match=r"is a ViTPose\+ with 6 experts, one for each data set"):
        opened(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(TeacherError, match="is a model of type vit; expected vitpose"):
        opened(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "none-such"}))
    with pytest.raises(TeacherError, match="transformers cannot load"):
        opened(tmp_path)


def without(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name != "head.conv.bias"}


def with_other_shape(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**tensors, "head.conv.bias": torch.zeros(16)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without, r"not all tensors of its network: head\.conv\.bias is missing; give"),
        (with_other_shape, r"not all tensors of its network: head\.conv\.bias has another shape"),
    ],
)
def test_a_model_that_lacks_tensors_is_refused(
    folder: Path,
    tmp_path: Path,
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    message: str,
) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(TeacherError, match=message):
        opened(tmp_path)
