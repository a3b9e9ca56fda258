"""One step's arithmetic: precision of the forward pass, a batch in parts, gradients, averages."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.runs.checkpoints import TrainingPlace
from pipeline.settings import Precision
from pipeline.training.batch import TrainingBatch
from pipeline.training.global_batch_norm import synchronise_batch_norm
from pipeline.training.losses import Criterion, LossTerms
from pipeline.training.optimisation import build_optimizer, build_scheduler
from pipeline.training.training_setup import Training


class Learner:
    """The network and its criterion on the device, with all that changes their weights."""

    def __init__(self, training: Training) -> None:
        self._training = training
        device, config = training.device, training.optimisation
        self.network = training.network.to(device).to(memory_format=torch.channels_last)
        self.criterion = training.criterion.to(device)
        self.average = average_of(self.network, config.average_decay)
        """Moving average of the network, as a module of its own; None: there is none."""
        self.optimizer = build_optimizer(self.network, self.criterion, config)
        self._scheduler = build_scheduler(self.optimizer, config, training.num_steps)
        self._scaler = torch.amp.GradScaler(device.type, enabled=training.precision == "float16")
        if training.processes.size > 1 and training.sync_batch_norm:
            synchronise_batch_norm(self.network, device)
        loss = BatchLoss(self.network, self.criterion, training.normalise, training.precision)
        if training.is_compiled:
            loss.network = torch.compile(self.network)  # type: ignore[assignment]
        self._loss_of = training.processes.with_averaged_gradients(
            loss, may_skip=any(True for _ in self.criterion.parameters())
        )
        self._weights = [
            weight for group in self.optimizer.param_groups for weight in group["params"]
        ]

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Everything with weights or statistics, by its name in the training state."""
        modules: dict[str, nn.Module] = {"network": self.network, "criterion": self.criterion}
        return modules if self.average is None else {**modules, "average": self.average}

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def gradient_scale(self) -> tuple[float, int] | None:
        """Scale of float16 gradients, and the number of steps since it last changed."""
        state = self._scaler.state_dict()
        return (state["scale"], state["_growth_tracker"]) if state else None

    def take_up(self, place: TrainingPlace) -> None:
        """Go on with the scale of gradients of a training state."""
        if place.gradient_scale is not None and self._scaler.is_enabled():
            scale, growth = place.gradient_scale
            state = {**self._scaler.state_dict(), "scale": scale, "_growth_tracker": growth}
            self._scaler.load_state_dict(state)

    def train(self) -> None:
        """Set network and criterion to training mode."""
        self._loss_of.train()

    def step(self, batch: TrainingBatch, step: int) -> tuple[LossTerms, Tensor, float]:
        """Change the weights by a batch, of which this process has some rows.

        step: its number, counted from 0, from which learning rate and random draws follow.
        Returns the loss of these rows, the norm of the whole batch's gradient, and the share of
        these rows in the batch.
        """
        training, config = self._training, self._training.optimisation
        self._scheduler.step_update(step)
        seed_step(training.info.seed, step, training.processes.rank)
        batch = training.with_targets(batch).to(training.device)
        share = len(batch.images) / training.batch_size
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[tuple[LossTerms, float]] = []
        parts = list(parts_of(batch, config.micro_batch))
        for number, (part, part_share) in enumerate(parts, start=1):
            with self._without_exchange() if number < len(parts) else contextlib.nullcontext():
                loss: LossTerms = self._loss_of(part, step)
                # Gradients are averaged over the processes, whose numbers of rows may differ.
                weighted = loss.total * (part_share * share * training.processes.size)
                torch.autograd.backward(self._scaler.scale(weighted))
            losses.append((LossTerms(loss.total.detach(), loss.terms), part_share))
        self._scaler.unscale_(self.optimizer)
        largest_norm = config.gradient_clip or float("inf")
        norm = nn.utils.clip_grad_norm_(self._weights, largest_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self._scaler.is_enabled():  # which skips a step whose gradients overflow
            norm = torch.where(norm.isfinite(), norm, 0.0)
        if self.average is not None:
            self.average.update_parameters(self.network)
        return total_of(losses), norm, share

    def _without_exchange(self) -> contextlib.AbstractContextManager[None]:
        """Keep the gradients of a part in this process, until those of the last part are there."""
        if isinstance(self._loss_of, DistributedDataParallel):
            return self._loss_of.no_sync()
        return contextlib.nullcontext()


class BatchLoss(nn.Module):
    """The network and its criterion, from a batch on the device to its loss.

    Weights, losses and gradients are float32; ``precision`` is that of the network's products.
    """

    network: nn.Module

    def __init__(
        self,
        network: nn.Module,
        criterion: Criterion,
        normalise: Callable[[Tensor], Tensor],
        precision: Precision,
    ) -> None:
        super().__init__()
        self.network, self.criterion = network, criterion
        self._normalise = normalise
        self._dtype: torch.dtype = getattr(torch, precision)

    def forward(self, batch: TrainingBatch, step: int) -> LossTerms:
        """Return the loss of a batch at a step, which is counted from 0."""
        images = self._normalise(batch.images)
        options = {"with_tokens": True} if self.criterion.reads_tokens else {}
        is_mixed = self._dtype != torch.float32
        with torch.autocast(images.device.type, self._dtype if is_mixed else None, is_mixed):
            output = self.network(images, **options)
        return self.criterion(output, batch, step)


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's global generator, for networks with dropout or other random layers."""
    digest = hashlib.sha256(f"step {seed} {step} {rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7], "little"))


def parts_of(batch: TrainingBatch, size: int | None) -> Iterator[tuple[TrainingBatch, float]]:
    """Yield a batch in parts of at most ``size`` rows, each with its share of the rows."""
    num_rows = len(batch.images)
    if size is None or size >= num_rows:
        yield batch, 1.0
        return
    for start in range(0, num_rows, size):
        part = batch.rows(start, min(start + size, num_rows))
        yield part, len(part.images) / num_rows


def total_of(losses: list[tuple[LossTerms, float]]) -> LossTerms:
    """Return the loss of a batch from those of its parts, each with its share of the rows."""
    if len(losses) == 1:
        return losses[0][0]
    names = losses[0][0].terms
    return LossTerms(
        torch.stack([share * loss.total for loss, share in losses]).sum(),
        {name: torch.stack([s * loss.terms[name] for loss, s in losses]).sum() for name in names},
    )


def average_of(network: nn.Module, decay: float) -> AveragedModel | None:
    """Return the exponential moving average of a network's weights; None for a decay of 0.

    The statistics of batch normalisation are copied: they are averages already.
    """
    if decay == 0:
        return None
    mean = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=mean)


def choose_precision(
    wanted: Precision | None, device: torch.device, recorded: Precision | None
) -> Precision:
    """Return the number format of the forward pass.

    wanted: None takes that of the run that is resumed; else bfloat16 on a GPU that computes in it,
        and float32 elsewhere: on a CPU the backward pass is no faster in bfloat16.
    """
    if wanted is not None:
        return wanted
    if recorded is not None:
        return recorded
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(False)
    return "bfloat16" if has_bfloat16 else "float32"
