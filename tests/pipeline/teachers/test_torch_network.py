"""Laws of teachers trained here: they open from weights and run folder and state what they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.coco.people import Skeleton
from pipeline.errors import RunFolderError, TeacherError
from pipeline.models.pose_networks import TokenPoseTeacher, build_network
from pipeline.runs.checkpoints import describe_network, load_network, save_weights
from pipeline.runs.run_folder import RunFolder
from pipeline.settings import TeacherSettings
from pipeline.teachers import Teacher, open_teacher

SKELETON = Skeleton(
    keypoint_names=("nose", "left_hand", "right_hand"),
    edges=((0, 1),),
    flip_indices=(0, 2, 1),
    sigmas=(0.1, 0.2, 0.3),
)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def build(architecture: str = "tokenpose-xs") -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(architecture, 3)


def save(path: Path, network: torch.nn.Module, frame: Any = "half-pixel", **changes: Any) -> Path:
    info = describe_network(
        network,  # type: ignore[arg-type]
        SKELETON,
        padding=1.25,
        seed=0,
        score_rule="one",
        heatmap_frame=frame,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, network, info.model_copy(update=changes))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best weights of a run folder."""
    run = RunFolder(tmp_path_factory.mktemp("run"))
    return save(run.best_weights, build(), rgb_mean=MEAN, rgb_std=STD)


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, 128, 96, 3), np.uint8)


def opened(path: Path, **settings: Any) -> Teacher:
    return open_teacher(path, TeacherSettings(batch_size=4, **settings))


def test_the_checkpoint_states_sizes_frame_pixels_and_names(weights: Path) -> None:
    teacher = opened(weights)
    assert (teacher.input_size_hw, teacher.heatmap_size_hw) == ((128, 96), (64, 48))
    assert (teacher.num_keypoints, teacher.frame) == (3, "half-pixel")
    assert (teacher.settings.mean, teacher.settings.std) == (MEAN, STD)
    assert teacher.network.keypoint_names == SKELETON.keypoint_names
    assert (teacher.network.kind, teacher.network.architecture) == ("torch", "tokenpose-xs")


def test_a_run_folder_means_its_best_weights(weights: Path, crops: NDArray[np.uint8]) -> None:
    by_file, by_folder = opened(weights), opened(weights.parent.parent)
    assert by_file.identity() == by_folder.identity()
    np.testing.assert_array_equal(
        by_file.predict_heatmaps(crops), by_folder.predict_heatmaps(crops)
    )


def test_its_heatmaps_are_those_of_the_network_in_evaluation_mode(
    weights: Path, crops: NDArray[np.uint8]
) -> None:
    network, _ = load_network(weights)
    assert isinstance(network, TokenPoseTeacher)
    images = (torch.from_numpy(crops).double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.inference_mode():
        expected = network(images.float().permute(0, 3, 1, 2)).heatmaps.numpy()
    np.testing.assert_allclose(opened(weights).predict_heatmaps(crops), expected, atol=1e-4)


def test_the_flip_test_averages_with_the_mirrored_twin(
    weights: Path, crops: NDArray[np.uint8]
) -> None:
    """Left and right are swapped back, columns reversed, without a shift in its frame."""
    teacher = opened(weights)
    twins = teacher.predict_heatmaps(crops[:, :, ::-1])[:, [0, 2, 1], :, ::-1]
    expected = (teacher.predict_heatmaps(crops) + twins) / 2
    found = opened(weights, flip_test=True).predict_and_decode(crops, SKELETON.flip_indices)
    np.testing.assert_allclose(found.heatmaps, expected, atol=1e-6)


def test_one_bit_of_a_weight_changes_the_sha256(weights: Path, tmp_path: Path) -> None:
    network = build()
    same = save(tmp_path / "same.safetensors", network, rgb_mean=MEAN, rgb_std=STD)
    assert opened(same).network.sha256 == opened(weights).network.sha256
    with torch.no_grad():
        bits = next(network.parameters()).view(torch.int32)
        bits.view(-1)[0] ^= 1
    changed = save(tmp_path / "changed.safetensors", network, rgb_mean=MEAN, rgb_std=STD)
    assert opened(changed).network.sha256 != opened(weights).network.sha256


def test_a_student_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "s.safetensors", build("distilpose-xs"), None)
    with pytest.raises(
        TeacherError, match="holds a student; expected a teacher from `distil train-teacher`"
    ):
        opened(path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"there is no file .*best\.safetensors"):
        opened(tmp_path)


def test_a_file_that_holds_no_tensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.safetensors").write_bytes(b"nothing")
    with pytest.raises(TeacherError, match=r"is not a whole safetensors file"):
        opened(tmp_path / "t.safetensors")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"heatmap_frame": "msra"}, "heatmap_frame is msra but .* has half-pixel; leave the opt"),
        ({"input_size_hw": (256, 192)}, r"input_size_hw is \(256, 192\) but .* has \(128, 96\)"),
        ({"mean": (0.0, 0.0, 0.0)}, r"mean is \(0.0, 0.0, 0.0\) but .* has \(0.4, 0.5, 0.6\)"),
        ({"std": (1.0, 1.0, 1.0)}, r"std is \(1.0, 1.0, 1.0\) but .* has \(0.2, 0.3, 0.4\)"),
        ({"scale": 1.0}, r"scale is 1.0 but .* has 0.0039"),
        ({"channel_order": "bgr"}, "channel_order is bgr but .* has rgb; leave the option out"),
        ({"output_name": "heat"}, "output_name is heat but .* has None; leave the option out"),
    ],
)
def test_an_option_that_contradicts_the_checkpoint_is_refused(
    weights: Path, settings: dict[str, Any], match: str
) -> None:
    with pytest.raises(TeacherError, match=match):
        opened(weights, **settings)


def test_an_option_that_repeats_the_checkpoint_is_taken(weights: Path) -> None:
    repeated = opened(weights, heatmap_frame="half-pixel", input_size_hw=(128, 96), mean=MEAN)
    assert repeated.identity() == opened(weights).identity()


def test_the_recipe_resolves_threads_and_says_what_arithmetic_is_allowed(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = open_teacher(weights, TeacherSettings()).execution_recipe()
    assert recipe["num_threads"] == torch.get_num_threads()
    assert (recipe["library"], recipe["device"]) == ("torch", "cpu")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not torch.backends.cudnn.allow_tf32)
    other = open_teacher(weights, TeacherSettings()).execution_recipe()
    assert {name for name in recipe if recipe[name] != other[name]} == {"tf32"}


@pytest.mark.parametrize("flip_test", [False, True])
def test_looking_with_tokens_changes_no_bit_of_the_heatmaps(
    weights: Path, crops: NDArray[np.uint8], flip_test: bool
) -> None:
    """Three crops in a batch of four: what is padded is no part of the tokens."""
    teacher = opened(weights, flip_test=flip_test)
    heatmaps, tokens = teacher.predict(crops, SKELETON.flip_indices, with_tokens=True)
    assert tokens is not None
    expected = teacher.predict(crops, SKELETON.flip_indices).heatmaps
    np.testing.assert_array_equal(heatmaps, expected, strict=True)
    dim, (rows, columns) = teacher.require_tokens()
    assert tokens["keypoint"].shape == (3, 3, dim)
    assert tokens["visual"].shape == (3, rows * columns, dim)


def test_the_heatmaps_follow_from_the_keypoint_tokens(
    weights: Path, crops: NDArray[np.uint8]
) -> None:
    teacher = opened(weights)
    heatmaps, tokens = teacher.predict(crops, SKELETON.flip_indices, with_tokens=True)
    assert tokens is not None
    module, _ = load_network(weights)
    assert isinstance(module, TokenPoseTeacher)
    with torch.inference_mode():
        drawn = module.head(torch.from_numpy(tokens["keypoint"])).numpy()
    np.testing.assert_allclose(heatmaps, drawn, rtol=1e-4, atol=1e-5)
