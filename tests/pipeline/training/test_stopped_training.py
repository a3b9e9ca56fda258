"""Laws of trainings that stop within an epoch and go on: to the last bit as if they never had."""

import errno
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.errors import Stopped
from pipeline.progress import NoProgress
from pipeline.runs.checkpoints import CheckpointInfo, read_info, read_place
from pipeline.runs.run_folder import RunFolder
from pipeline.training.loop import fit
from store_schemas.errors import StorageError
from tests.support.file_operations import Operation, watch
from tests.support.tiny_training import network, tiny_training

FILES = ("metrics", "last_weights", "best_weights", "training_state")
EVERYTHING: dict[str, Any] = {
    "network": nn.Sequential(network(), nn.Dropout(0.5)),
    "optimisation": {"average_decay": 0.9, "micro_batch": 3, "optimizer": "adamw"},
}
"""With dropout, parts of batches and averaged weights."""


def new_folder(path: Path) -> RunFolder:
    path.mkdir()
    return RunFolder(path)


def everything(**changes: Any) -> dict[str, Any]:
    parts = nn.Sequential(network(), nn.Dropout(0.5))
    return {**EVERYTHING, "network": parts, **changes}


def kill_at(step: int, number: int) -> Callable[[int], None]:
    return lambda now: os.kill(os.getpid(), number) if now == step else None


def assert_same(one: RunFolder, other: RunFolder) -> None:
    for name in FILES:
        assert getattr(one, name).read_bytes() == getattr(other, name).read_bytes(), name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [0, 2, 3, 5])
def test_a_training_stopped_by_a_signal_goes_on_to_the_last_bit(
    tmp_path: Path, step: int, number: int
) -> None:
    whole, cut = new_folder(tmp_path / "whole"), new_folder(tmp_path / "cut")
    fit(tiny_training(**everything()), whole, NoProgress())
    stopped = "stopped by SIGTERM" if number == signal.SIGTERM else "stopped"
    with pytest.raises(Stopped, match=f"^{stopped}; .* holds the training after {step + 1} of 8"):
        fit(tiny_training(before_batch=kill_at(step, number), **everything()), cut, NoProgress())
    assert read_place(cut.training_state).step == step + 1
    assert read_info(cut.last_weights).step == step + 1
    fit(tiny_training(**everything()), cut, NoProgress(), resume=True)
    assert_same(whole, cut)


def test_a_training_killed_between_checkpoints_goes_on_from_the_last_one(tmp_path: Path) -> None:
    """The state of every step is saved; the training dies after the third of an epoch."""

    class Killed(Exception):
        pass

    def die(step: int) -> None:
        if step == 7:
            raise Killed

    whole, cut = new_folder(tmp_path / "whole"), new_folder(tmp_path / "cut")
    fit(tiny_training(**everything()), whole, NoProgress())
    dying = everything(checkpoint_seconds=0.0)
    with pytest.raises(Killed):
        fit(tiny_training(before_batch=die, **dying), cut, NoProgress())
    assert (read_place(cut.training_state).epoch, read_place(cut.training_state).step) == (1, 7)
    fit(tiny_training(**everything()), cut, NoProgress(), resume=True)
    assert_same(whole, cut)


@pytest.mark.parametrize("number", [0, 1, 4, 7])
def test_a_full_disk_is_told_in_one_line_and_loses_nothing(tmp_path: Path, number: int) -> None:
    count = 0

    def full(operation: Operation) -> None:
        nonlocal count
        count += operation.kind == "create"
        if count > number and operation.kind not in ("unlink", "rmdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    whole, cut = new_folder(tmp_path / "whole"), new_folder(tmp_path / "cut")
    fit(tiny_training(**everything()), whole, NoProgress())
    told = r"cut/\S+ cannot be written: No space left on device.*; .*cut holds .*with --resume$"
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, full, syncs=False)
        with pytest.raises(StorageError, match=told):
            fit(tiny_training(**everything()), cut, NoProgress())
    fit(tiny_training(**everything()), cut, NoProgress(), resume=True)
    assert_same(whole, cut)


def test_a_validation_that_is_stopped_is_made_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def validate(network: nn.Module, info: CheckpointInfo) -> Mapping[str, float | None]:
        asked.append(info.epoch)
        if len(asked) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"AP": 0.5}

    folder = new_folder(tmp_path / "cut")
    with pytest.raises(Stopped, match="after 8 of 8 steps"):
        fit(tiny_training(validate=validate), folder, NoProgress())
    place = fit(tiny_training(validate=validate), folder, NoProgress(), resume=True)
    assert asked == [1, 2, 2]
    assert (place.epoch, place.step) == (2, 8)
    assert [line["event"] for line in folder.read_metrics()] == ["epoch", "validation"] * 2


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    def twice(step: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(tiny_training(before_batch=twice), new_folder(tmp_path / "run"), NoProgress())


def test_a_batch_in_parts_has_the_gradient_of_the_whole(tmp_path: Path) -> None:
    """Without batch normalisation, which sees the rows of a part."""
    ends = []
    for size in (None, 1, 3, 7):
        torch.manual_seed(0)
        parts = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
        training = tiny_training(network=parts, optimisation={"micro_batch": size})
        fit(training, new_folder(tmp_path / str(size)), NoProgress())
        ends.append(torch.cat([weight.flatten() for weight in parts.parameters()]))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-4, atol=1e-6)


def test_averaged_weights_are_those_of_the_formula_and_copy_batch_statistics(
    tmp_path: Path,
) -> None:
    """a_0 = w_0, a_t = 0.75 a + 0.25 w, with the weights after each step."""
    seen: list[dict[str, torch.Tensor]] = []
    tiny = network()

    def look(step: int) -> None:
        if step > 0:
            seen.append({name: value.clone() for name, value in tiny.state_dict().items()})

    measured: list[nn.Module] = []

    def validate(network: nn.Module, info: CheckpointInfo) -> Mapping[str, float | None]:
        measured.append(network)
        return {"AP": 0.1 if network is tiny else 0.2}

    folder = new_folder(tmp_path / "run")
    training = tiny_training(
        network=tiny,
        before_batch=look,
        optimisation={"average_decay": 0.75},
        validate=validate,
        epochs=1,
    )
    fit(training, folder, NoProgress())
    seen.append(tiny.state_dict())
    expected = seen[0]
    for now in seen[1:]:
        expected = {name: 0.75 * expected[name] + 0.25 * now[name] for name in now}
    average = measured[1].state_dict()
    assert measured[0] is tiny
    for name in ("0.weight", "1.weight", "4.bias"):
        torch.testing.assert_close(average[name], expected[name])
        assert not torch.equal(average[name], tiny.state_dict()[name])
    assert torch.equal(average["1.running_mean"], tiny.state_dict()["1.running_mean"])
    lines = [line for line in folder.read_metrics() if line["event"] == "validation"]
    assert [line.get("weights") for line in lines] == [None, "averaged"]
    assert folder.best_weights.read_bytes() == folder.averaged_weights.read_bytes()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_changes_products_alone_and_goes_on_as_it_began(
    tmp_path: Path, precision: str
) -> None:
    class Seeing(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            output = super().forward(x)
            seen.append((self.weight.dtype, output.dtype))
            return output

    def session(**changes: Any) -> Any:
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Flatten(), Seeing(48, 2))
        return tiny_training(network=layers, precision=precision, **changes)

    seen: list[tuple[torch.dtype, torch.dtype]] = []
    whole, cut = new_folder(tmp_path / "whole"), new_folder(tmp_path / "cut")
    fit(session(), whole, NoProgress())
    assert set(seen) == {(torch.float32, getattr(torch, precision))}
    with pytest.raises(Stopped):
        fit(session(before_batch=kill_at(1, signal.SIGTERM)), cut, NoProgress())
    place = read_place(cut.training_state)
    assert place.precision == precision
    assert (place.gradient_scale is not None) == (precision == "float16")
    fit(session(), cut, NoProgress(), resume=True)
    assert_same(whole, cut)
