"""Laws of checkpoints: what is saved is what is loaded, and a wrong file is refused in one line."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.coco.people import Skeleton
from pipeline.errors import RunFolderError
from pipeline.models.pose_networks import build_network
from pipeline.runs.checkpoints import (
    TrainingPlace,
    check_training_state,
    describe_network,
    load_network,
    load_training_state,
    read_info,
    save_training_state,
    save_weights,
)
from pipeline.training.optimisation import build_optimizer
from pipeline.training.settings import OptimisationConfig

SKELETON = Skeleton(
    keypoint_names=("nose", "left_hand", "right_hand"),
    edges=((0, 1),),
    flip_indices=(0, 2, 1),
    sigmas=(0.1, 0.2, 0.3),
)


def saved(
    path: Path, architecture: str = "distilpose-xs", *, as_float16: bool = False
) -> nn.Module:
    torch.manual_seed(0)
    network = build_network(architecture, 3)
    info = describe_network(network, SKELETON, padding=1.25, seed=4, score_rule="one")
    save_weights(path, network, info, as_float16=as_float16)
    return network


def test_a_network_comes_back_with_what_is_needed_to_use_it(tmp_path: Path) -> None:
    network = saved(tmp_path / "w.safetensors").eval()
    loaded, info = load_network(tmp_path / "w.safetensors")
    images = torch.rand(2, 3, 128, 96)
    assert torch.equal(loaded(images).keypoints, network(images).keypoints)
    assert info.skeleton == SKELETON
    assert (info.kind, info.input_size_hw, info.heatmap_size_hw) == ("student", (128, 96), None)


def test_a_teacher_states_its_heatmaps(tmp_path: Path) -> None:
    saved(tmp_path / "w.safetensors", "tokenpose-xs")
    info = read_info(tmp_path / "w.safetensors")
    assert (info.kind, info.heatmap_size_hw) == ("teacher", (64, 48))


def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path: Path) -> None:
    saved(tmp_path / "w.safetensors")
    network = saved(tmp_path / "h.safetensors", as_float16=True)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in "wh"]
    assert sizes[1] < 0.53 * sizes[0]
    loaded, _ = load_network(tmp_path / "h.safetensors")
    for name, weight in loaded.named_parameters():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(
            weight, network.get_parameter(name), rtol=1e-3, atol=1e-6, msg=name
        )


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_a_training_state_continues_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    """Convolutions are channels-last, so moments must come back in that memory order."""
    config = OptimisationConfig.model_validate({"optimizer": optimizer})
    torch.manual_seed(0)
    images = torch.rand(4, 3, 128, 96)

    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        network = build_network("distilpose-xs", 3).to(memory_format=torch.channels_last)
        return network, build_optimizer(network, nn.Module(), config)

    def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        network(images).keypoints.square().mean().backward()
        optimizer.step()

    network, optimiser = fresh()
    step(network, optimiser)
    place = TrainingPlace(epoch=1, step=1, best_ap=0.25, scored_keypoints=(0, 2))
    save_training_state(tmp_path / "s.safetensors", {"network": network}, optimiser, place)
    twin, twin_optimiser = fresh()
    assert (
        load_training_state(tmp_path / "s.safetensors", {"network": twin}, twin_optimiser) == place
    )
    for _ in range(2):
        step(network, optimiser)
        step(twin, twin_optimiser)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name]), name


def test_wrong_files_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"there is no file .*give the path of saved weights"):
        load_network(tmp_path / "none.safetensors")
    saved(tmp_path / "torn.safetensors")
    data = (tmp_path / "torn.safetensors").read_bytes()
    (tmp_path / "torn.safetensors").write_bytes(data[:-100])
    with pytest.raises(RunFolderError, match="is not a whole safetensors file"):
        load_network(tmp_path / "torn.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "alien.safetensors")
    with pytest.raises(RunFolderError, match="has no header of this program"):
        load_network(tmp_path / "alien.safetensors")


def test_a_state_of_another_architecture_is_refused_by_tensor(tmp_path: Path) -> None:
    def optimizer_of(network: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(network, nn.Module(), OptimisationConfig())

    teacher, student = (build_network(name, 3) for name in ("tokenpose-xs", "distilpose-xs"))
    place = TrainingPlace(epoch=1, step=1)
    path = tmp_path / "s.safetensors"
    save_training_state(path, {"network": teacher}, optimizer_of(teacher), place)
    with pytest.raises(RunFolderError, match=r"tensor head\.\S+ is .* belongs to another archite"):
        load_training_state(path, {"network": student}, optimizer_of(student))


def test_a_training_state_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    """Its pixels were normalised with other rounding: going on would not be exact."""
    path = tmp_path / "s.safetensors"
    check_training_state(path)
    save_file({"network/weight": torch.zeros(1)}, path, {"distil": '{"epoch": 1, "step": 4}'})
    with pytest.raises(RunFolderError, match=r"s\.safetensors was written by an earlier version"):
        check_training_state(path)
    network = nn.Linear(1, 1)
    optimizer = build_optimizer(network, nn.Module(), OptimisationConfig())
    place = TrainingPlace(epoch=1, step=4)
    save_training_state(path, {"network": network}, optimizer, place)
    check_training_state(path)
