"""The start of a training whose parts are built: said, refused where it does not fit, and run."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import StageConfig
from pipeline.progress import Progress
from pipeline.runs.checkpoints import TrainingPlace
from pipeline.runs.run_folder import RunFolder
from pipeline.training.loop import fit
from pipeline.training.preflight import LoadedViews, check_before_training
from pipeline.training.training_setup import MetricSink, Training
from pipeline.wording import Log

_logger = logging.getLogger(__name__)


def start_training(
    training: Training,
    folder: RunFolder,
    config: StageConfig,
    views: LoadedViews,
    facts: Mapping[str, object],
    open_sinks: Callable[[Path, Mapping[str, Any]], tuple[MetricSink, ...]],
    *,
    warnings: Iterable[str],
    epochs_done: int,
    resume: bool,
    progress: Progress,
    say: Log,
) -> TrainingPlace:
    """Check that a training fits this machine, begin its run folder, and train to the last epoch.

    config: written to the run folder.
    facts: for provenance.json.
    open_sinks: opens what takes the figures beside metrics.jsonl, from run folder and settings;
        called in the first process.
    warnings: lines for the user on settings that keep the training from learning.
    epochs_done: whole epochs that the run folder holds.
    say: receives the warnings, and what the training needs.

    Raises:
        ConfigError: it does not fit the memory; there is no run folder then.
        DistilError, StoreError: as ``fit``.
    """
    lines = [*warnings, check_before_training(training, views, epochs_done)]
    for line in lines:
        say(line)
    training.processes.wait()  # until every one of them has found the folder fit
    folder.begin(config, facts, resume=resume)
    if training.processes.is_first:
        training = replace(training, sinks=open_sinks(folder.root, config.model_dump(mode="json")))
    with folder.logging():
        for line in lines:
            _logger.info("%s", line)
        place = fit(training, folder, progress, resume=resume)
        if summary := training.ledger.summary():
            _logger.warning("%s", summary)
    return place
