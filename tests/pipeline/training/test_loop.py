"""Laws of the loop itself, on a tiny network: checkpoints at whole epochs only, faults by name."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pipeline.errors import RunFolderError, TrainingError
from pipeline.progress import NoProgress
from pipeline.runs.checkpoints import CheckpointInfo, read_info
from pipeline.runs.run_folder import RunFolder
from pipeline.training import loop
from pipeline.training.batch import TrainingBatch
from pipeline.training.loop import fit
from pipeline.training.losses import Criterion, LossTerms
from pipeline.training.settings import OptimisationConfig
from pipeline.training.training_setup import Training
from tests.support.recorded_progress import RecordedProgress
from tests.support.tiny_training import INFO

STEPS_PER_EPOCH = 3


class Square(Criterion):
    """Minimise the square of a noisy output; a NaN image makes the loss NaN."""

    @property
    def scored_keypoints(self) -> tuple[int, ...]:
        return (0,)

    def forward(self, output: Tensor, batch: TrainingBatch, step: int) -> LossTerms:
        error = (output + torch.rand(1)).square().mean()
        return LossTerms(2 * error, {"error": error.detach()})


class Scaled(Square):
    """Owns a weight of its own, as a flow or a projector would."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(2))

    def forward(self, output: Tensor, batch: TrainingBatch, step: int) -> LossTerms:
        return super().forward(self.factor * output, batch, step)


def batches(epoch: int, start: int = 0, bad_epoch: int | None = None) -> Iterator[TrainingBatch]:
    for step in range(start, STEPS_PER_EPOCH):
        bad = epoch == bad_epoch and step == 1
        images = torch.full((2, 2), float("nan") if bad else float(epoch + step))
        yield TrainingBatch(
            images, torch.zeros(2, 1, 2), torch.ones(2, 1), torch.ones(2, 1).bool(), torch.ones(2)
        )


def training(**changes: object) -> Training:
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "network": nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)),
        "info": INFO,
        "criterion": Square(),
        "normalise": lambda images: images,
        "batches_of_epoch": batches,
        "steps_per_epoch": STEPS_PER_EPOCH,
        "batch_size": 2,
        "epochs": 3,
        "optimisation": OptimisationConfig(warmup_steps=0, schedule="constant"),
        "device": torch.device("cpu"),
    }
    return Training(**{**settings, **changes})  # type: ignore[arg-type]


def new_folder(path: Path) -> RunFolder:
    path.mkdir()
    return RunFolder(path)


def test_random_draws_follow_from_the_epoch_so_resume_is_exact_with_dropout(
    tmp_path: Path,
) -> None:
    whole, grown = new_folder(tmp_path / "a"), new_folder(tmp_path / "b")
    fit(training(), whole, NoProgress())
    fit(training(epochs=1), grown, NoProgress())
    torch.rand(7)  # whatever another session drew
    fit(training(), grown, NoProgress(), resume=True)
    for name in ("training_state", "last_weights", "metrics"):
        assert getattr(whole, name).read_bytes() == getattr(grown, name).read_bytes(), name


def test_weights_of_the_criterion_are_trained_saved_and_taken_up_again(tmp_path: Path) -> None:
    """Half a training and its resumed half end where the whole one does, to the last bit."""
    whole, grown = Scaled(), Scaled()
    fit(training(criterion=whole, epochs=2), new_folder(tmp_path / "a"), NoProgress())
    folder = new_folder(tmp_path / "b")
    fit(training(criterion=Scaled(), epochs=1), folder, NoProgress())
    fit(training(criterion=grown, epochs=2), folder, NoProgress(), resume=True)
    assert (whole.factor != 1).all()
    assert torch.equal(whole.factor, grown.factor)
    with pytest.raises(RunFolderError, match=r"tensor factor is .* in the file and absent in the"):
        fit(training(epochs=3), folder, NoProgress(), resume=True)


def rates_of(settings: dict[str, object], folder: RunFolder) -> list[float]:
    """Return the learning rate of each step of a training of 12 steps."""
    rates: list[float] = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    config = OptimisationConfig.model_validate({"warmup_steps": 0, **settings})
    fit(training(epochs=4, optimisation=config), folder, NoProgress())
    hook.remove()
    return rates


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        (
            {"schedule": "constant", "warmup_steps": 5},
            lambda optimizer: lr_scheduler.LinearLR(optimizer, 1e-3, 1.0, total_iters=5),
        ),
        (
            {"schedule": "step", "decay_at": (0.5, 0.75)},
            lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [6, 9], gamma=0.1),
        ),
        (
            {"schedule": "cosine", "min_learning_rate": 1e-5},
            lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 12, eta_min=1e-5),
        ),
    ],
    ids=["warm-up", "step", "cosine"],
)
def test_the_rate_of_every_step_of_a_training_is_that_of_torchs_schedule(
    settings: dict[str, object],
    reference: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler],
    tmp_path: Path,
) -> None:
    """Over the bounds of epochs: the first step has the rate of index 0, the last of 11."""
    optimizer = torch.optim.Adam(nn.Linear(2, 2).parameters(), lr=1e-3)
    schedule, expected = reference(optimizer), []
    for _ in range(12):
        expected += schedule.get_last_lr()
        optimizer.step()
        schedule.step()
    assert rates_of(settings, new_folder(tmp_path / "run")) == pytest.approx(expected)


def test_scored_keypoints_are_those_of_all_epochs_before_and_after_a_resume(
    tmp_path: Path,
) -> None:
    """Criteria are new in every session: what the last one scored is in the training state."""

    class Scoring(Square):
        def __init__(self, *keypoints: int) -> None:
            super().__init__()
            self.keypoints = keypoints

        @property
        def scored_keypoints(self) -> tuple[int, ...]:
            return self.keypoints

    folder = new_folder(tmp_path / "run")
    info = INFO.model_copy(update={"keypoint_names": tuple("abcd")})
    for epochs, scored, known in ((1, (2,), (2,)), (2, (0,), (0, 2)), (3, (), (0, 2))):
        session = training(criterion=Scoring(*scored), info=info, epochs=epochs)
        place = fit(session, folder, NoProgress(), resume=epochs > 1)
        rule = read_info(folder.last_weights).model_copy(update={"score_rule": "learned"}).rule
        assert place.scored_keypoints == rule.scored_keypoints == known


def test_tokens_are_asked_of_the_network_where_the_criterion_reads_them(tmp_path: Path) -> None:
    class Tokens(Square):
        @property
        def reads_tokens(self) -> bool:
            return True

    class Network(nn.Linear):
        def forward(self, images: Tensor, with_tokens: bool = False) -> Tensor:
            asked.append(with_tokens)
            return super().forward(images)

    asked: list[bool] = []
    for name, criterion in (("a", Square()), ("b", Tokens())):
        fit(
            training(criterion=criterion, network=Network(2, 2), epochs=1),
            new_folder(tmp_path / name),
            NoProgress(),
        )
    assert asked == [False] * STEPS_PER_EPOCH + [True] * STEPS_PER_EPOCH


def test_a_loss_that_is_not_finite_names_step_and_terms_and_keeps_the_last_epoch(
    tmp_path: Path,
) -> None:
    folder = new_folder(tmp_path / "run")
    fit(training(epochs=1), folder, NoProgress())
    before = {p: p.read_bytes() for p in (folder.last_weights, folder.training_state)}
    bad = training(batches_of_epoch=lambda epoch, start: batches(epoch, start, bad_epoch=1))
    with pytest.raises(TrainingError, match="step 5 is not finite: loss nan, error nan, gradient"):
        fit(bad, folder, NoProgress(), resume=True)
    assert {path: path.read_bytes() for path in before} == before


def test_an_interruption_says_how_to_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupted(epoch: int, start: int) -> Iterator[TrainingBatch]:
        yield from batches(epoch)
        if epoch == 1:
            raise KeyboardInterrupt

    folder = new_folder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        fit(training(batches_of_epoch=interrupted), folder, NoProgress())
    assert "interrupted in epoch 2" in caplog.text
    assert "--resume" in caplog.text


def test_metrics_hold_the_mean_of_each_term_over_the_epoch(tmp_path: Path) -> None:
    class Constant(Square):
        def forward(self, output: Tensor, batch: TrainingBatch, step: int) -> LossTerms:
            loss = 0 * output.mean() + step
            return LossTerms(loss, {"step_number": torch.tensor(10.0 * step)})

    folder = new_folder(tmp_path / "run")
    fit(training(criterion=Constant(), epochs=2), folder, NoProgress())
    lines = folder.read_metrics()
    assert [(m["loss"], m["step_number"]) for m in lines] == [(1.0, 10.0), (4.0, 40.0)]
    assert [(m["step"], m["person_views"]) for m in lines] == [(3, 6), (6, 12)]


def test_the_best_weights_are_those_of_the_highest_ap_the_later_of_equals(
    tmp_path: Path,
) -> None:
    found = iter([0.2, 0.5, 0.5, None, 0.4])
    epochs = []

    def validate(network: nn.Module, info: CheckpointInfo) -> dict[str, float | None]:
        assert not network.training
        epochs.append(info.epoch)
        return {"AP": next(found)}

    folder = new_folder(tmp_path / "run")
    place = fit(training(validate=validate, epochs=5), folder, NoProgress())
    assert epochs == [1, 2, 3, 4, 5]
    assert read_info(folder.best_weights).epoch == 3
    assert place.best_ap == 0.5
    assert place.scored_keypoints == (0,)


def test_the_best_weights_are_those_of_the_figure_that_decides(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = iter([0.2, 0.5, 0.4, 0.3])

    def validate(network: nn.Module, info: CheckpointInfo) -> dict[str, float | None]:
        return {"AP": None, "mean_pck": next(found)}

    caplog.set_level(logging.INFO)
    folder = new_folder(tmp_path / "run")
    changes = {"validate": validate, "decided_by": "mean_pck"}
    fit(training(**changes, epochs=3), folder, NoProgress())
    place = fit(training(**changes, epochs=4), folder, NoProgress(), resume=True)
    assert read_info(folder.best_weights).epoch == 2
    assert (place.best_ap, place.best_pck) == (None, 0.5)
    assert "best weights: epoch 2, by its mean_pck of 0.5" in caplog.text


class Counting:
    """An account of the epochs."""

    def __init__(self) -> None:
        self.num_epochs = 0

    def epoch_facts(self) -> Mapping[str, object]:
        self.num_epochs += 1
        return {"epochs_counted": self.num_epochs}

    def facts_so_far(self) -> Mapping[str, object]:
        return {}

    def restore(
        self, lines: Sequence[Mapping[str, object]], so_far: Mapping[str, object] = {}
    ) -> None:
        self.num_epochs = max([int(str(line["epochs_counted"])) for line in lines], default=0)


def test_an_account_is_in_each_epochs_line_and_goes_on_after_a_resume(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "run")
    fit(training(ledger=Counting(), epochs=2), folder, NoProgress())
    fit(training(ledger=Counting(), epochs=3), folder, NoProgress(), resume=True)
    assert [line["epochs_counted"] for line in folder.read_metrics()] == [1, 2, 3]


def test_an_epochs_means_do_not_depend_on_when_losses_are_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow steps are told one by one, and the metrics keep their bits."""
    written, told = [], []
    for seconds in (1e9, 0.0):
        monkeypatch.setattr(loop, "LOG_EVERY_SECONDS", seconds)
        progress = RecordedProgress()
        folder = new_folder(tmp_path / str(seconds))
        fit(training(epochs=2), folder, progress)
        written.append(folder.metrics.read_bytes())
        told.append([done for done, _ in progress.updates])
    assert written[0] == written[1]
    assert told == [[0, 3, 6], [0, 1, 2, 3, 4, 5, 6]]
