"""A run folder: the files of one training, each of them published whole.

config.json                        all settings, defaults included
provenance.json                    versions, command and teacher store of the start and each resume
metrics.jsonl                      one line per epoch and per validation; no times, so that a
                                   resumed run equals an uninterrupted one byte for byte
checkpoints/last.safetensors       weights at the last checkpoint
checkpoints/averaged.safetensors   their moving average, where optimisation.average_decay is set
checkpoints/best.safetensors       weights of the highest validation AP, or PCK
                                   where the skeleton has no sigmas; without
                                   validation, those after the last whole epoch
checkpoints/training_state.safetensors   what --resume needs
evaluation.json                    written by ``distil evaluate``
evaluations/DIGEST.json            written by ``distil report``: figures and poses of the best
                                   weights, by the digest of weights, people and settings
log.txt                            log lines of the run, with times
"""

import json
import logging
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config import CONFIG_FILE, StageConfig, changed_settings, parse_config, read_begun
from pipeline.errors import RunFolderError
from pipeline.runs.checkpoints import check_training_state
from pipeline.storage.files import explained, publish
from pipeline.wording import counted

_PACKAGES = ("distil-pose", "torch", "timm", "numpy", "opencv-python-headless", "pillow", "zarr")


def provenance(**facts: Any) -> dict[str, Any]:
    """Return versions, machine and time, together with the facts of the caller."""
    cores = counted(os.cpu_count() or 1, "core")
    return {
        "written_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {cores}",
        "packages": {package: version(package) for package in _PACKAGES},
        **facts,
    }


StageT = TypeVar("StageT", bound=StageConfig)


class RunFolder:
    """The paths of a run's files, and the reading and writing of those that are text."""

    def __init__(self, root: Path, *, is_written: bool = True) -> None:
        self.root = root
        self.is_written = is_written
        """Whether this process writes it: one of those that share a training does."""
        self.config = root / CONFIG_FILE
        self.provenance = root / "provenance.json"
        self.metrics = root / "metrics.jsonl"
        self.last_weights = root / "checkpoints" / "last.safetensors"
        self.averaged_weights = root / "checkpoints" / "averaged.safetensors"
        self.best_weights = root / "checkpoints" / "best.safetensors"
        self.training_state = root / "checkpoints" / "training_state.safetensors"
        self.evaluation = root / "evaluation.json"
        self.evaluations = root / "evaluations"
        self.log = root / "log.txt"

    def check(self, config: StageConfig, *, resume: bool) -> None:
        """Refuse a folder in which this run can be neither started nor resumed; writes nothing.

        Raises:
            RunFolderError: the run is new and the folder is not empty; or it is resumed, and the
                folder holds no run, or a setting other than ``resumable_changes`` differs.
        """
        if resume:
            self._check_resumable(config)
        elif self.root.is_dir() and any(self.root.iterdir()):
            what = "a run" if self.config.is_file() else "other files"
            way_out = ", or continue it with --resume" if self.config.is_file() else ""
            raise RunFolderError(
                f"the run folder {self.root} already holds {what}; choose another "
                f"--run-folder{way_out}"
            )

    def begin(self, config: StageConfig, facts: Mapping[str, object], *, resume: bool) -> None:
        """Write config.json, and add an event to provenance.json; call ``check`` before.

        facts: entries of the event besides versions, such as command and teacher store.

        Raises:
            StorageError: the disk takes no more.
        """
        if not self.is_written:
            return
        events = json.loads(self.provenance.read_bytes()) if self.provenance.is_file() else []
        events.append({"event": "resume" if resume else "start", **provenance(**facts)})
        with explained(self.root):
            publish(self.provenance, (json.dumps(events, indent=2) + "\n").encode())
            publish(self.config, config.to_json().encode())

    def _check_resumable(self, config: StageConfig) -> None:
        check_training_state(self.training_state)
        for name, before, after in changed_settings(self.read_config(type(config)), config):
            if not _is_among(name, config.resumable_changes):
                raise RunFolderError(
                    f"the run in {self.root} began with {name} = {json.dumps(before)}, now it is "
                    f"{json.dumps(after)}; resume with the same setting, or start another run"
                )

    def read_config(self, stage: type[StageT]) -> StageT:
        """Return the configuration of the run in this folder.

        Raises:
            RunFolderError: there is no run here.
        """
        return parse_config(stage, json.dumps(read_begun(self.config)), str(self.config))

    def append_metrics(self, line: Mapping[str, object]) -> None:
        """Add one line to metrics.jsonl, and flush it to the disk.

        Raises:
            StorageError: the disk takes no more.
        """
        if not self.is_written:
            return
        added = json.dumps(line, allow_nan=False) + "\n"
        with explained(self.metrics, len(added)), self.metrics.open("a", encoding="utf-8") as file:
            file.write(added)
            file.flush()
            os.fsync(file.fileno())

    def read_metrics(self) -> list[dict[str, object]]:
        """Return the lines of metrics.jsonl; a torn last line is left out."""
        if not self.metrics.is_file():
            return []
        whole_lines = self.metrics.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in whole_lines]

    def truncate_metrics(self, epoch: int) -> None:
        """Drop the lines of metrics.jsonl of epochs after the first ``epoch`` ones.

        Raises:
            StorageError: the disk takes no more.
        """
        if not self.is_written:
            return
        kept = [line for line in self.read_metrics() if int(str(line["epoch"])) <= epoch]
        with explained(self.metrics):
            publish(self.metrics, "".join(json.dumps(line) + "\n" for line in kept).encode())

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Write the program's log lines to log.txt too, within the context."""
        handler: logging.Handler = logging.NullHandler()
        if self.is_written:
            handler = logging.FileHandler(self.log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        loggers = [logging.getLogger(name) for name in ("pipeline", "stages")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.removeHandler(handler)
                logger.setLevel(level)
            handler.close()


def _is_among(name: str, beginnings: frozenset[str]) -> bool:
    return any(name == start or name.startswith(f"{start}.") for start in beginnings)
