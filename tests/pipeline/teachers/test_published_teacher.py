"""A published checkpoint as a teacher: what its identity states, and settings that it refuses."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from pipeline.errors import TeacherError
from pipeline.repair.recomputation import open_stored_teacher
from pipeline.settings import IMAGENET_MEAN, IMAGENET_STD, TeacherSettings
from pipeline.teachers import Teacher, open_teacher
from tests.support import published_forward as published
from tests.support.evaluation_sample import save_network
from tests.support.onnx_teacher import write_onnx_teacher
from tests.support.published_checkpoints import PUBLISHED, drawn

TENSORS = drawn(PUBLISHED["tokenpose_tokenpose_t_256_192_patch1612_dim192_depth12_heads16"]())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "tokenpose_t.pth"
    torch.save({"state_dict": TENSORS}, path)
    return path


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (2, 256, 192, 3), np.uint8)


def opened(path: Path, **settings: Any) -> Teacher:
    return open_teacher(path, TeacherSettings(batch_size=1, num_threads=1, **settings))


def test_the_identity_states_network_frame_and_pixels(checkpoint: Path) -> None:
    identity = opened(checkpoint).identity()
    stated = {
        "kind": "published", "architecture": "tokenpose-t", "num_keypoints": 17,
        "input_size_hw": [256, 192], "heatmap_size_hw": [64, 48], "heatmap_frame": "msra",
        "flip_shift": 1, "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD),
        "channel_order": "rgb", "decoding": "dark",
    }  # fmt: skip
    assert {name: identity[name] for name in stated} == stated
    assert len(identity["sha256"]) == 64


def test_the_frame_is_a_default(checkpoint: Path) -> None:
    """Networks trained anew, with UDP for example, keep the published names and shapes."""
    assert opened(checkpoint, heatmap_frame="udp").identity()["heatmap_frame"] == "udp"


def test_vitpose_was_trained_in_the_frame_of_udp(tmp_path: Path) -> None:
    torch.save(drawn(PUBLISHED["vitpose_small_classic_256x192"]()), tmp_path / "vitpose.pth")
    teacher = opened(tmp_path / "vitpose.pth")
    assert (teacher.frame, teacher.settings.flip_shift) == ("udp", 0)


def test_heatmaps_and_tokens_are_the_published_ones(
    checkpoint: Path, crops: NDArray[np.uint8]
) -> None:
    """From pixels on: RGB, 1 / 255, mean and standard deviation of ImageNet."""
    found = opened(checkpoint).predict(crops, tuple(range(17)), with_tokens=True)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    images = ((torch.from_numpy(crops) / 255 - mean) / std).permute(0, 3, 1, 2)
    expected = published.encode(TENSORS, "transformer.", images, (16, 12), 16, 12**-0.5)
    heatmaps = expected.outputs.view(2, 17, 64, 48).numpy()
    np.testing.assert_allclose(found.heatmaps, heatmaps, atol=1e-4 * np.abs(heatmaps).max())
    assert found.tokens is not None
    tokens = np.concatenate([found.tokens["keypoint"], found.tokens["visual"]], axis=1)
    np.testing.assert_allclose(tokens, expected.tokens.numpy(), atol=1e-3)


def test_the_digest_is_that_of_the_tensors_in_use(checkpoint: Path, tmp_path: Path) -> None:
    """Not of the file around them; one bit of the positions counts too."""
    expected = opened(checkpoint).network.sha256
    save_file({**TENSORS, "more": torch.ones(1)}, tmp_path / "same.safetensors")
    torch.save({f"module.{name}": t for name, t in TENSORS.items()}, tmp_path / "same.bin")
    assert opened(tmp_path / "same.safetensors").network.sha256 == expected
    assert opened(tmp_path / "same.bin").network.sha256 == expected
    for name in ("transformer.pos_embedding", "transformer.mlp_head.3.bias"):
        changed = {**TENSORS, name: TENSORS[name].clone()}
        changed[name].view(torch.int32).view(-1)[0] ^= 1
        save_file(changed, tmp_path / "changed.safetensors")
        assert opened(tmp_path / "changed.safetensors").network.sha256 != expected


def test_unused_tensors_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "more.safetensors"
    save_file({**TENSORS, **{f"loss.{n}": torch.ones(1) for n in range(7)}}, path)
    (note,) = opened(path).notes
    assert note == (
        f"7 tensors of {path} not used by tokenpose-t: loss.0, loss.1, loss.2, loss.3, loss.4 and "
        "2 more"
    )


def test_an_architecture_is_asked_for_and_stands_in_the_identity(tmp_path: Path) -> None:
    path = tmp_path / "tokenpose_s.pth"
    name = "tokenpose_tokenpose_s_v1_256_192_patch43_dim192_depth12_heads8"
    torch.save(drawn(PUBLISHED[name]()), path)
    with pytest.raises(TeacherError, match=r"tokenpose_s\.pth: the tensors do not tell how atten"):
        opened(path)
    teacher = opened(path, architecture="tokenpose-s-v1")
    assert teacher.identity()["architecture"] == "tokenpose-s-v1"


def test_a_stores_identity_opens_its_teacher_again(checkpoint: Path) -> None:
    """Its architecture is a setting there; for other kinds of teachers it only states the name."""
    teacher = opened(checkpoint, flip_test=True)
    identity: Any = SimpleNamespace(teacher=teacher.identity())
    again = open_stored_teacher(checkpoint, identity, teacher.execution_recipe())
    assert again.settings.architecture == "tokenpose-t"
    assert again.identity() == teacher.identity()


def test_an_architecture_without_effect_is_refused(tmp_path: Path) -> None:
    onnx = write_onnx_teacher(tmp_path / "teacher.onnx")
    with pytest.raises(TeacherError, match=r"architecture is hrnet-w32, but .* states its network"):
        opened(onnx, architecture="hrnet-w32")
    own = save_network(tmp_path / "own.safetensors", "tokenpose-xs")
    with pytest.raises(TeacherError, match=r"architecture is hrnet-w32 but .* has tokenpose-xs"):
        opened(own, architecture="hrnet-w32")


def test_what_is_no_heatmap_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.pth"
    torch.save(drawn(PUBLISHED["distilpose_DistilPose_S_coco_256x192"]()), path)
    with pytest.raises(TeacherError, match=r"holds a student \(distilpose-s\); expected a heatmap"):
        opened(path)
    torch.save({"layer.weight": torch.ones(1)}, path)
    with pytest.raises(TeacherError, match=r"network\.pth: the names of the tensors .* ONNX"):
        opened(path)
