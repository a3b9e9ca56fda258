"""A run folder: every file of one training, each appearing whole.

config.json                        all settings, defaults included
provenance.json                    versions, command and teacher store of the start and each resume
metrics.jsonl                      one line per epoch and per validation; no times, so that a
                                   resumed run equals an uninterrupted one byte for byte
checkpoints/last.safetensors       weights after the last whole epoch
checkpoints/best.safetensors       weights of the highest validation AP; without
                                   validation, those after the last whole epoch
checkpoints/training_state.safetensors   what --resume needs
evaluation.json                    written by ``distil evaluate``
log.txt                            what was said while it ran, with times
"""

import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pipeline.config import StageConfig, changed_settings, parse_config
from pipeline.errors import RunFolderError
from pipeline.file_layer import publish

StageT = TypeVar("StageT", bound=StageConfig)

_PACKAGES = ("distil-pose", "torch", "timm", "numpy", "opencv-python-headless", "zarr")


class RunFolder:
    """The one owner of the paths of a run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.json"
        self.provenance = root / "provenance.json"
        self.metrics = root / "metrics.jsonl"
        self.last_weights = root / "checkpoints" / "last.safetensors"
        self.best_weights = root / "checkpoints" / "best.safetensors"
        self.training_state = root / "checkpoints" / "training_state.safetensors"
        self.evaluation = root / "evaluation.json"
        self.log = root / "log.txt"

    def begin(self, config: StageConfig, facts: Mapping[str, object]) -> None:
        """Start a new run in a folder that is empty or not there yet.

        facts: what provenance.json says besides versions: command, teacher store.

        Raises:
            RunFolderError: the folder already holds something.
        """
        if self.root.is_dir() and any(self.root.iterdir()):
            what = "a run" if self.config.is_file() else "files of something else"
            raise RunFolderError(
                f"the run folder {self.root} already holds {what}; choose another --run-folder"
                + (", or go on with it by --resume" if self.config.is_file() else "")
            )
        self.last_weights.parent.mkdir(parents=True, exist_ok=True)
        self._write_provenance([{"event": "start", **_versions(), **facts}])
        publish(self.config, config.to_json().encode())

    def resume(self, config: StageConfig, facts: Mapping[str, object]) -> None:
        """Go on with the run in this folder; epochs and paths may have changed, nothing else.

        Raises:
            RunFolderError: there is no run here, or a setting differs from the one it began with.
        """
        old = self.read_config(type(config))
        for name, before, after in changed_settings(old, config):
            if not _is_among(name, config.resumable_changes):
                raise RunFolderError(
                    f"the run in {self.root} began with {name} = {json.dumps(before)}, now it is "
                    f"{json.dumps(after)}; resume with the same setting, or start another run"
                )
        events = json.loads(self.provenance.read_bytes()) if self.provenance.is_file() else []
        self._write_provenance([*events, {"event": "resume", **_versions(), **facts}])
        publish(self.config, config.to_json().encode())

    def read_config(self, stage: type[StageT]) -> StageT:
        """Return the configuration that the run in this folder has.

        Raises:
            RunFolderError: there is no run here.
        """
        if not self.config.is_file():
            raise RunFolderError(
                f"there is no run in {self.root} (no config.json); check --run-folder, or "
                "leave --resume out to start one"
            )
        return parse_config(stage, self.config.read_bytes(), str(self.config))

    def append_metrics(self, line: Mapping[str, object]) -> None:
        """Add one line to metrics.jsonl, durably."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read_metrics(self) -> list[dict[str, object]]:
        """Return the lines of metrics.jsonl; a torn last line is left out."""
        if not self.metrics.is_file():
            return []
        whole_lines = self.metrics.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in whole_lines]

    def truncate_metrics(self, step: int) -> None:
        """Drop what metrics.jsonl says of steps after ``step``."""
        kept = [line for line in self.read_metrics() if int(str(line["step"])) <= step]
        publish(self.metrics, "".join(json.dumps(line) + "\n" for line in kept).encode())

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Write what the program says meanwhile to log.txt as well."""
        handler = logging.FileHandler(self.log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        loggers = [logging.getLogger(name) for name in ("pipeline", "stages")]
        for logger in loggers:
            logger.addHandler(handler)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(handler)
            handler.close()

    def _write_provenance(self, events: list[dict[str, object]]) -> None:
        publish(self.provenance, (json.dumps(events, indent=2) + "\n").encode())


def _is_among(name: str, beginnings: frozenset[str]) -> bool:
    return any(name == start or name.startswith(f"{start}.") for start in beginnings)


def _versions() -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "packages": {package: version(package) for package in _PACKAGES},
    }
