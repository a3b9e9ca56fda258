"""The training loop of students and teachers.

A step is a function of (seed, step) and of weights and optimiser before it, so a training state
makes ``--resume`` exact, at the end of an epoch and within one.
"""

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext

from torch import nn

from pipeline.errors import Stopped
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.runs.checkpoints import (
    CheckpointInfo,
    TrainingPlace,
    load_training_state,
    read_place,
    save_training_state,
    save_weights,
)
from pipeline.runs.run_folder import RunFolder
from pipeline.training.epoch_record import EpochRecord, in_words
from pipeline.training.stop_request import StopRequest
from pipeline.training.training_setup import Training
from pipeline.training.training_step import Learner
from pipeline.wording import counted
from store_schemas.errors import StorageError

_logger = logging.getLogger(__name__)

LOG_EVERY_STEPS = 20
"""Interval at which losses are copied to the host, which waits for the device."""
LOG_EVERY_SECONDS = 1.0
"""Interval at which they are copied where that many steps take longer."""


def fit(
    training: Training, run_folder: RunFolder, progress: Progress, *, resume: bool = False
) -> TrainingPlace:
    """Train to the last epoch; metrics and checkpoints are written to the run folder.

    resume: continue after the last step of the training state in the run folder, if there is one.
    Returns epoch, step and best AP or PCK at the end.

    Raises:
        Stopped: on SIGTERM or Ctrl-C; the training state is that after the last step.
        TrainingError: a loss or a gradient is not finite; the checkpoints are those of before.
        DistilError, StoreError: a batch cannot be loaded.
        StorageError: the disk is full; names the file, and what --resume goes on from.
    """
    processes = training.processes
    learner = Learner(training)
    place = TrainingPlace(epoch=0, step=0)
    if resume and run_folder.training_state.is_file():
        place = load_training_state(run_folder.training_state, learner.modules, learner.optimizer)
        learner.take_up(place)
    progress = progress if processes.is_first else NO_PROGRESS
    progress.update(place.step, training.num_steps)

    stop = StopRequest()
    try:
        run_folder.truncate_metrics(place.epoch)
        processes.wait()  # until the first process has truncated them
        training.ledger.restore(run_folder.read_metrics(), place.epoch_facts)
        with stop.on_signals():
            while place.epoch < training.epochs:
                place, means = _train_epoch(training, learner, run_folder, place, progress, stop)
                is_validated = training.is_validated_after(place.epoch + 1)
                if is_validated:
                    # A validation takes long and may be stopped: it is then made again.
                    _save(training, learner, run_folder, place)
                facts = training.ledger.epoch_facts()
                place = place.model_copy(
                    update={"epoch": place.epoch + 1, "epoch_sums": {}, "epoch_facts": {}}
                )
                _logger.info("epoch %d of %d: %s", place.epoch, training.epochs, in_words(means))
                figures = {
                    "person_views": place.step * training.batch_size,
                    "learning_rate": learner.learning_rate,
                    **means,
                    **facts,
                }
                _record(training, run_folder, "epoch", place, figures)
                with stop.at_once() if is_validated else nullcontext():
                    place = _validate(training, learner, run_folder, place)
                # The state is written last: without it the epoch does not count as done.
                _save(training, learner, run_folder, place)
                if place.epoch < training.epochs:
                    stop.check()
    except Stopped as error:
        raise Stopped(f"{error}; {_describe_state(training, run_folder)}") from None
    except StorageError as error:
        raise StorageError(f"{error}; {_describe_state(training, run_folder)}") from error
    except KeyboardInterrupt:
        _logger.warning(
            "interrupted in epoch %d; %s", place.epoch + 1, _describe_state(training, run_folder)
        )
        raise
    finally:
        for sink in training.sinks:
            sink.close()
    return place


def _train_epoch(
    training: Training,
    learner: Learner,
    run_folder: RunFolder,
    place: TrainingPlace,
    progress: Progress,
    stop: StopRequest,
) -> tuple[TrainingPlace, dict[str, float]]:
    """Train to the end of the epoch; return the place there, and the mean losses of the epoch.

    Raises:
        Stopped: a stop was requested; the training state is saved.
    """
    processes = training.processes
    learner.train()
    first_step = place.epoch * training.steps_per_epoch
    last_step = first_step + training.steps_per_epoch
    record = EpochRecord(place.step, place.epoch_sums, place.step - first_step, processes)
    batches = training.batches_of_epoch(place.epoch, place.step - first_step)
    logged_at = saved_at = began = time.perf_counter()
    seconds_waited = 0.0
    for step, batch in enumerate(batches, start=place.step):
        seconds_waited += time.perf_counter() - began
        record.add(*learner.step(batch, step))

        done, began = step + 1, time.perf_counter()
        is_last = done == last_step
        steps_are_due = (done - first_step) % LOG_EVERY_STEPS == 0 or is_last
        must_log, must_save, must_stop = processes.any(
            [
                steps_are_due or began - logged_at >= LOG_EVERY_SECONDS,
                began - saved_at >= training.checkpoint_seconds,
                stop.reason is not None,
            ]
        )
        if must_log or must_save or must_stop:
            num_steps = record.num_waiting
            means = record.read_back()  # raises TrainingError where one is not finite
            began = time.perf_counter()
            seconds = began - logged_at
            figures = {
                **means,
                "lr": learner.learning_rate,
                "images/s": num_steps * training.batch_size / seconds,
                "waited": 100 * seconds_waited / seconds,
            }
            logged_at, seconds_waited = began, 0.0
            progress.update(done, training.num_steps, figures)
            for sink in training.sinks:
                sink.add("step", done, figures)
        if (must_save or must_stop) and not is_last:
            _save(training, learner, run_folder, _place_at(training, learner, place, done, record))
            saved_at = time.perf_counter()
        if must_stop and not is_last:
            stop.check()
            raise Stopped("another process was stopped")
    return _place_at(training, learner, place, last_step, record), record.epoch_means()


def _place_at(
    training: Training, learner: Learner, place: TrainingPlace, step: int, record: EpochRecord
) -> TrainingPlace:
    """Return the place after a number of steps, within the epoch that runs or at its end."""
    scored = training.processes.gathered(training.criterion.scored_keypoints)
    return place.model_copy(
        update={
            "step": step,
            "precision": training.precision,
            "epoch_sums": record.sums,
            "epoch_facts": dict(training.ledger.facts_so_far()),
            "gradient_scale": learner.gradient_scale,
            "scored_keypoints": tuple(sorted({*place.scored_keypoints}.union(*scored))),
        }
    )


def _save(
    training: Training, learner: Learner, run_folder: RunFolder, place: TrainingPlace
) -> None:
    """Save the weights and, last, the training state; no process goes on before it is there."""
    info = _info_at(training, place)
    if run_folder.is_written:
        save_weights(run_folder.last_weights, learner.network, info)
        if learner.average is not None:
            save_weights(run_folder.averaged_weights, learner.average.module, info)
        save_training_state(run_folder.training_state, learner.modules, learner.optimizer, place)
    training.processes.wait()


def _info_at(training: Training, place: TrainingPlace) -> CheckpointInfo:
    return training.info.model_copy(
        update={
            "epoch": place.epoch,
            "step": place.step,
            "scored_keypoints": place.scored_keypoints,
        }
    )


def _record(
    training: Training,
    run_folder: RunFolder,
    event: str,
    place: TrainingPlace,
    figures: Mapping[str, object],
) -> None:
    """Add a line to metrics.jsonl, and tell the figures to whoever else takes them."""
    run_folder.append_metrics({"event": event, "epoch": place.epoch, "step": place.step, **figures})
    for sink in training.sinks:
        sink.add(event, place.step, figures)


def _validate(
    training: Training, learner: Learner, run_folder: RunFolder, place: TrainingPlace
) -> TrainingPlace:
    """Validate the network if this epoch is due, and save the weights if they are the best so far.

    Averaged weights are measured beside the last ones, and may be the best. Without validation
    they count as the best or, without an average, the last ones.
    """
    processes, info = training.processes, _info_at(training, place)
    candidates: dict[str, nn.Module] = {"": learner.network}
    if learner.average is not None:
        candidates["averaged"] = learner.average.module
    if training.validate is None:
        if run_folder.is_written:
            save_weights(run_folder.best_weights, [*candidates.values()][-1], info)
        return place
    if not training.is_validated_after(place.epoch):
        return place
    for kind, network in candidates.items():
        if not training.sync_batch_norm:
            processes.take_buffers_of_first(network)
        figures = dict(training.validate(network.eval(), info))
        words = f"validation {'of averaged weights ' if kind else ''}after epoch {place.epoch}"
        _logger.info("%s: %s", words, in_words(figures))
        mark = {"weights": kind} if kind else {}
        _record(training, run_folder, "validation", place, {**mark, **figures})
        name = training.decided_by
        found, best = figures.get(name), place.best_ap if name == "AP" else place.best_pck
        # Of equal figures the later one counts: early networks often have an AP of 0.
        if found is None or (best is not None and found < best):
            continue
        if run_folder.is_written:
            save_weights(run_folder.best_weights, network, info)
        _logger.info("best weights: epoch %d, by its %s of %.4g", place.epoch, name, found)
        place = place.model_copy(update={"best_ap" if name == "AP" else "best_pck": found})
    return place


def _describe_state(training: Training, run_folder: RunFolder) -> str:
    if not run_folder.training_state.is_file():
        return f"{run_folder.root} holds no checkpoint yet: begin again with --resume"
    done = read_place(run_folder.training_state).step
    return (
        f"{run_folder.root} holds the training after {done} of "
        f"{counted(training.num_steps, 'step')}: continue with --resume"
    )
