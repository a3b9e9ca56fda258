"""Settings, metrics and provenance of a run folder, as a page tells them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import StageConfig
from pipeline.errors import RunFolderError
from pipeline.models.cost import count_parameters
from pipeline.prediction.networks import best_weights
from pipeline.runs.checkpoints import CheckpointInfo, load_network, read_info
from pipeline.runs.run_folder import RunFolder
from pipeline.runs.run_state import hours_of
from pipeline.storage.files import file_sha256


@dataclass(frozen=True)
class RunFacts:
    """A run of a student, from the files of its folder."""

    name: str
    folder: RunFolder
    config: StageConfig
    batch_size: int
    """Person-views of a step."""
    info: CheckpointInfo
    """Description of its best weights."""
    weights_sha256: str
    num_parameters: int
    metrics: Sequence[Mapping[str, Any]]
    """Lines of metrics.jsonl."""
    events: Sequence[Mapping[str, Any]]
    """Events of provenance.json: the start and each resume."""
    hours: float

    @property
    def weights(self) -> Path:
        return self.folder.best_weights

    @property
    def person_views(self) -> int:
        """Number of views that the training has shown, in all its whole epochs."""
        epochs = [self.views_of(line) for line in self.metrics if line["event"] == "epoch"]
        return epochs[-1] if epochs else 0

    def views_of(self, line: Mapping[str, Any]) -> int:
        """Return the person-views that were shown before a line of metrics.jsonl."""
        return int(line.get("person_views") or self.batch_size * line["step"])


def read_run(name: str, root: Path, config: StageConfig, batch_size: int) -> RunFacts:
    """Read the run folder of a student.

    batch_size: number of person-views of a step, by ``config``.

    Raises:
        RunFolderError: the folder has no weights yet, or a teacher's.
    """
    folder = RunFolder(root)
    network, info = load_network(best_weights(root))
    has_events = folder.provenance.is_file()
    return RunFacts(
        name=name,
        folder=folder,
        config=config,
        batch_size=batch_size,
        info=info,
        weights_sha256=file_sha256(folder.best_weights),
        num_parameters=count_parameters(network),
        metrics=folder.read_metrics(),
        events=json.loads(folder.provenance.read_bytes()) if has_events else (),
        hours=hours_of(folder),
    )


def require_student(root: Path) -> None:
    """Refuse a run folder without a student's weights.

    Raises:
        RunFolderError: the folder holds no run, no weights yet, or a teacher's.
    """
    info = read_info(best_weights(root))
    if info.kind != "student":
        raise RunFolderError(
            f"the run {root} is one of a {info.kind} ({info.architecture}); a report is about "
            "students: give run folders of train-student"
        )


def names_of(roots: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths of different folders that tell them apart."""
    parts = [root.resolve().parts for root in roots]
    longest = max(map(len, parts))
    ends = (["/".join(path[-length:]) for path in parts] for length in range(1, longest + 1))
    return next(names for names in ends if len(set(names)) == len(set(parts)))
