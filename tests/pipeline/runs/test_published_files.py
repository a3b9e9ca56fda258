"""Files of published checkpoints: tensors only, whatever stands around them."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.coco.skeletons import COCO_KEYPOINT_NAMES, coco_skeleton
from pipeline.errors import ConfigError, RunFolderError
from pipeline.models import build_student
from pipeline.models.published_networks import build_published
from pipeline.prediction.networks import open_student_at
from pipeline.runs.initial_weights import set_initial_weights
from pipeline.runs.published_files import is_published_file, load_published, read_published
from tests.support.published_checkpoints import PUBLISHED, drawn

STUDENT = drawn(PUBLISHED["distilpose_DistilPose_S_coco_256x192"]())
TENSORS = {"head.weight": torch.arange(6.0).view(2, 3), "head.bias": torch.ones(2)}
META = {
    "epoch": 210,
    "meta": {"sigmas": np.array([0.026, 0.025]), "AP": np.float64(0.75), "classes": ("person",)},
}


@pytest.mark.parametrize("wrapper", ["state_dict", "model", None])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_tensors_are_taken_out_of_a_trainings_checkpoint(
    tmp_path: Path, wrapper: str | None, prefix: str
) -> None:
    """With the numbers of numpy that mmpose writes beside them."""
    state = {f"{prefix}{name}": tensor for name, tensor in TENSORS.items()}
    content = {wrapper: state, **META} if wrapper else state
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    found = read_published(path)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


def test_arrays_that_numpy_1_wrote_are_read(tmp_path: Path) -> None:
    """Its functions have the old name of their module in the pickle."""
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": TENSORS, **META}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_published(path).keys() == TENSORS.keys()


def test_code_is_refused_and_never_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return (open, (str(tmp_path / "written"), "w"))  # type: ignore[return-value]

    path = tmp_path / "checkpoint.pth"
    for code, name in ((Bomb(), r"_?io\.open"), (argparse.Namespace(a=1), "argparse.Namespace")):
        torch.save({"state_dict": TENSORS, "more": code}, path)
        with pytest.raises(RunFolderError, match=f"holds {name}, which is code and is never run"):
            read_published(path)
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list; expected a state dict"),
        ({"epoch": 3, "name": "hrnet"}, "holds no tensors by name, but epoch, name; give"),
    ],
)
def test_files_without_tensors_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "checkpoint.pth")
    with pytest.raises(RunFolderError, match=message):
        read_published(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torn_and_missing_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"checkpoint{suffix}"
    with pytest.raises(RunFolderError, match="there is no file"):
        read_published(path)
    path.write_bytes(b"torn")
    with pytest.raises(RunFolderError, match=r"is (no|not a) whole"):
        read_published(path)


def test_a_published_student_predicts_with_the_usual_skeleton(tmp_path: Path) -> None:
    """From torch's format and from safetensors; scores are its own, boxes padded as usual."""
    torch.save({"state_dict": STUDENT}, tmp_path / "student.pth")
    save_file(STUDENT, tmp_path / "student.safetensors")
    crops = np.random.default_rng(0).integers(0, 256, (1, 256, 192, 3), np.uint8)
    images = (torch.from_numpy(crops).double() / 255 - torch.tensor([0.485, 0.456, 0.406])) / (
        torch.tensor([0.229, 0.224, 0.225])
    )
    with torch.inference_mode():
        expected = build_published(STUDENT).network(images.float().permute(0, 3, 1, 2))
    for suffix in (".pth", ".safetensors"):
        assert is_published_file(tmp_path / f"student{suffix}")
        opened = open_student_at(tmp_path / f"student{suffix}", flip_test=False, device="cpu")
        assert opened.skeleton == coco_skeleton()
        assert opened.rule.kind == "learned"
        assert opened.rule.scored_keypoints == tuple(range(17))
        assert (opened.padding, opened.notes) == (1.25, ())
        assert opened.facts["architecture"] == "distilpose-s"
        assert "epoch" not in opened.facts
        found = opened.estimator.estimate(crops)
        in_pixels = expected.keypoints.numpy() * [192, 256]
        np.testing.assert_allclose(found.keypoints, in_pixels, atol=1e-2)
        np.testing.assert_allclose(found.scores, expected.scores.numpy(), atol=1e-4)


def test_a_student_without_scores_ranks_every_pose_alike_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "plain.pth"
    torch.save(
        {**drawn(PUBLISHED["distilpose_stemnet_coco_256x192"]()), "x.y": torch.ones(1)}, path
    )
    opened = open_student_at(path, device="cpu")
    assert opened.rule.kind == "one"
    assert opened.notes == (
        f"1 tensor of {path} not used by distilpose-s: x.y",
        f"{path} has no scores and sigmas: every pose is scored 1",
    )


def test_published_teachers_and_other_keypoints_are_no_students(tmp_path: Path) -> None:
    path = tmp_path / "network.pth"
    torch.save(drawn(PUBLISHED["tokenpose_tokenpose_t_256_192_patch1612_dim192_depth12_heads16"]()),
               path)  # fmt: skip
    with pytest.raises(RunFolderError, match=r"holds a teacher \(tokenpose-t\); expected a"):
        open_student_at(path, device="cpu")
    name = "keypoint_head.tokenhead.keypoint_token"
    torch.save({**STUDENT, name: STUDENT[name][:, :16]}, path)
    with pytest.raises(RunFolderError, match="predicts 16 keypoints without naming them; expected"):
        open_student_at(path, device="cpu")


def test_a_fault_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "network.pth"
    torch.save(TENSORS, path)
    with pytest.raises(ConfigError, match=r"network\.pth: the names of the tensors"):
        load_published(path)


def test_a_training_starts_from_a_published_checkpoint(tmp_path: Path) -> None:
    """All parts that the networks share are copied, and the rest is named."""
    path = tmp_path / "tokenpose.pth"
    theirs = drawn(PUBLISHED["tokenpose_tokenpose_s_v1_256_192_patch43_dim192_depth12_heads8"]())
    torch.save({"state_dict": theirs}, path)
    student = build_student("distilpose-s", 17)
    said: list[str] = []
    parts = ("backbone", "encoder")
    set_initial_weights(student, path, parts, pretrained=False, say=said.append)
    own = student.state_dict()
    num_shared = sum(name.startswith(parts) for name in own)
    assert said == [f"initial weights: {num_shared} of the {len(theirs)} tensors of {path}"]
    for published, ours in {
        "features.conv1.weight": "backbone.conv1.weight",
        "features.layer1.3.bn3.running_var": "backbone.layer1.3.bn3.running_var",
        "features.keypoint_token": "encoder.keypoint_tokens",
        "features.transformer.layers.11.1.fn.fn.net.3.bias": "encoder.layers.11.mlp_out.bias",
    }.items():
        assert torch.equal(own[ours], theirs[published])


def test_keypoints_and_edges_are_cocos() -> None:
    skeleton = coco_skeleton()
    assert skeleton.keypoint_names == COCO_KEYPOINT_NAMES
    named = {frozenset((COCO_KEYPOINT_NAMES[a], COCO_KEYPOINT_NAMES[b])) for a, b in skeleton.edges}
    assert len(named) == 19
    assert frozenset(("left_knee", "left_ankle")) in named
    assert frozenset(("right_shoulder", "left_shoulder")) in named
    assert skeleton.flip_indices[1:3] == (2, 1)
