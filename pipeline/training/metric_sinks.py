"""Where else than in metrics.jsonl the figures of a training go: TensorBoard, Weights & Biases.

Both are extras. metrics.jsonl stays the record: what these hold of a training that was resumed
may include steps that were repeated.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.training.training_setup import MetricSink


class TensorBoardSink:
    """Writes event files to the folder ``tensorboard`` of a run folder."""

    def __init__(self, run_folder: Path) -> None:
        from torch.utils import tensorboard  # needs the extra

        open_writer: Any = tensorboard.SummaryWriter  # untyped where the extra is not installed
        self._writer = open_writer(str(run_folder / "tensorboard"))

    def add(self, kind: str, step: int, figures: Mapping[str, object]) -> None:
        """Write the numbers among the figures as scalars ``kind/name``."""
        for name, value in _numbers(figures):
            self._writer.add_scalar(_title(kind, name, figures), value, step)

    def close(self) -> None:
        """Write what is still waiting."""
        self._writer.close()


class WandbSink:
    """Sends figures to a project of Weights & Biases, under the name of the run folder."""

    def __init__(self, run_folder: Path, project: str, settings: Mapping[str, object]) -> None:
        import wandb  # an extra

        self._run: Any = wandb.init(
            project=project, name=run_folder.name, dir=str(run_folder), config=dict(settings)
        )

    def add(self, kind: str, step: int, figures: Mapping[str, object]) -> None:
        """Send the numbers among the figures as ``kind/name``."""
        values = {_title(kind, name, figures): value for name, value in _numbers(figures)}
        self._run.log({**values, "trained_steps": step})

    def close(self) -> None:
        """Send what is still waiting."""
        self._run.finish()


def open_sinks(
    run_folder: Path, settings: Mapping[str, object], *, tensorboard: bool, wandb: str | None
) -> tuple[MetricSink, ...]:
    """Return the sinks of a training.

    wandb: name of the project; None: none.
    """
    sinks: list[MetricSink] = []
    if tensorboard:
        sinks.append(TensorBoardSink(run_folder))
    if wandb is not None:
        sinks.append(WandbSink(run_folder, wandb, settings))
    return tuple(sinks)


def _numbers(figures: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, int | float):
            yield name, float(value)


def _title(kind: str, name: str, figures: Mapping[str, object]) -> str:
    weights = figures.get("weights")
    return f"{kind} of {weights} weights/{name}" if weights else f"{kind}/{name}"
