"""A sweep -> trainings as processes -> evaluations -> one table with paired intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pipeline.ablation.budget import (
    TrainingSource,
    bytes_on_disk,
    epochs_for,
    makespan,
    seconds_per_view,
)
from pipeline.ablation.plot import MISSING, can_plot, draw_curves
from pipeline.ablation.processes import Job, last_line, locked, run_jobs
from pipeline.ablation.table import (
    RunRow,
    Samples,
    SweepTable,
    as_csv,
    as_json,
    as_markdown,
    build_table,
    runs_as_csv,
)
from pipeline.coco.people import People
from pipeline.coco.read_people import read_people
from pipeline.errors import ConfigError, DistilError, TrainingError
from pipeline.evaluation.kept_evaluations import Evaluator
from pipeline.machine import choose_device
from pipeline.models.pose_networks import build_student
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.runs.checkpoints import read_info
from pipeline.runs.run_folder import RunFolder
from pipeline.runs.run_state import (
    RunState,
    hours_of,
    read_state,
    require_same_settings,
    validation_curve,
)
from pipeline.settings import KEYPOINT_THRESHOLD
from pipeline.storage.files import publish
from pipeline.wording import Log, counted
from stages.settings.ablate import FREE_TO_DIFFER, AblateConfig, Plan, PlannedRun
from stages.settings.training import TrainStudentConfig


@dataclass(frozen=True)
class AblateResult:
    """The table of a sweep, and the files that hold it."""

    table: SweepTable
    written: tuple[Path, ...]


@dataclass(frozen=True)
class RunForecast:
    """What a training of a sweep would do, before it begins."""

    name: str
    epochs: int
    person_views: int
    state: str
    """new, resumed after an epoch, or finished."""
    bytes_per_view: float | None
    bytes_on_disk: int
    seconds: float
    """Time that it still needs on this machine, about."""


@dataclass(frozen=True)
class Forecast:
    """What a sweep would do."""

    question: str
    runs: tuple[RunForecast, ...]
    seconds: float
    """Time until the last run ends, with as many at once as configured."""


@dataclass(frozen=True)
class _Run:
    """A training of known length, and its folder."""

    plan: PlannedRun
    folder: RunFolder
    batch_size: int
    steps: int
    num_keypoints: int
    bytes_per_view: float | None
    state: RunState

    @property
    def is_finished(self) -> bool:
        return self.state.steps >= self.steps

    @property
    def person_views(self) -> int:
        return self.steps * self.batch_size


def ablate(
    config: AblateConfig, plan: Plan, progress: Progress = NO_PROGRESS, say: Log = lambda _: None
) -> AblateResult:
    """Do the trainings of a sweep that are not done, and write table.md, .csv, .json and a plot.

    progress: counts person-views.
    say: receives a line when a training ends, and what the user should know.

    Raises:
        DistilError: the sweep or an input is at fault; nothing was trained. Or trainings failed:
            all others were done, and the table holds them.
        StoreError: a store is at fault.
    """
    evaluator, people = _evaluator(config, plan)
    runs = _runs_of(config, plan)
    if not can_plot():
        say(MISSING)
    with locked(config.output) as lock:
        sweep = _RunningSweep(config, plan, runs, evaluator, people, progress, say)
        sweep.write_table()
        waiting = [run for run in runs if run.plan.arm.name in plan.chosen and not run.is_finished]
        run_jobs([sweep.job(run) for run in waiting], config.parallel, lock, sweep.end, sweep.show)
        result = sweep.write_table()
        if sweep.failed:
            name, why = next(iter(sweep.failed.items()))
            raise TrainingError(
                f"{counted(len(sweep.failed), 'training')} of {len(waiting)} failed, the first is "
                f"{name}: {why}; the same command tries again"
            )
    return result


def forecast(config: AblateConfig, plan: Plan) -> Forecast:
    """Say what a sweep would train, and what it would take; nothing is trained or written.

    Raises:
        DistilError, StoreError: as ``ablate``.
    """
    _evaluator(config, plan)
    runs = [run for run in _runs_of(config, plan) if run.plan.arm.name in plan.chosen]
    speeds: dict[tuple[str, int], float] = {}
    found = []
    for run in runs:
        training, done = run.plan.config, run.state.steps * run.batch_size
        key = (training.architecture, training.num_threads or 0)
        hours = hours_of(run.folder)
        if done and hours:
            speeds[key] = hours * 3600 / done
        elif key not in speeds:
            device = choose_device(training.device, training.num_threads)
            speeds[key] = seconds_per_view(
                training.architecture, run.num_keypoints, run.batch_size, device
            )
        begun = f"resumed after epoch {run.state.epochs}" if run.state.is_begun else "new"
        found.append(
            RunForecast(
                run.plan.name,
                training.epochs,
                run.person_views,
                "finished" if run.is_finished else begun,
                run.bytes_per_view,
                bytes_on_disk(training.architecture, run.num_keypoints),
                speeds[key] * max(0, run.person_views - done),
            )
        )
    seconds = makespan([run.seconds for run in found], config.parallel)
    return Forecast(plan.sweep.question, tuple(found), seconds)


@dataclass
class _RunningSweep:
    """The trainings of a sweep while they run, and the table of those that have ended."""

    config: AblateConfig
    plan: Plan
    runs: Sequence[_Run]
    evaluator: Evaluator
    people: People
    progress: Progress
    say: Log
    failed: dict[str, str] = field(default_factory=dict)
    rows: dict[str, RunRow] = field(default_factory=dict)
    """Rows of finished runs, by name: they do not change any more."""
    samples: dict[str, Samples] = field(default_factory=dict)

    def job(self, run: _Run) -> Job:
        root = run.folder.root
        words = run.plan.command(root, resume=run.state.is_begun)
        return Job(run.plan.name, words, root.with_name(f"{root.name}.txt"))

    def end(self, job: Job, code: int) -> None:
        """Report a training that ended, and add it to the table."""
        if code:
            why = last_line(job.log).removeprefix("distil: ") or f"exit code {code}"
            self.failed[job.name] = f"{why} (see {job.log})"
            self.say(f"{job.name} FAILED: {self.failed[job.name]}")
            return
        run = next(run for run in self.runs if run.plan.name == job.name)
        row = self._row(run)
        found = row.evaluation
        self.say(
            f"{job.name}: AP {found.own_score['AP'] or 0:.3f}, with score 1 "
            f"{found.score_one['AP'] or 0:.3f}, mean OKS {found.mean_oks:.4f}, "
            f"{row.person_views} person-views, {row.hours:.2f} h"
        )
        self.write_table()

    def show(self) -> None:
        """Show how far the trainings are together."""
        chosen = [run for run in self.runs if run.plan.arm.name in self.plan.chosen]
        total = sum(run.person_views for run in chosen)
        self.progress.update(sum(_views_done(run) for run in chosen), total)

    def write_table(self) -> AblateResult:
        """Measure what is finished and not measured yet, and write the table of it."""
        done = [run for run in self.runs if read_state(run.folder).steps >= run.steps]
        table = build_table(
            self.plan.sweep.question,
            {arm.name: arm.baseline for arm in self.plan.arms},
            [self._row(run) for run in done],
            self.people.image_index,
            _notes(self.plan, self.people, len(done), len(self.plan.runs)),
            samples=self.samples,
        )
        output = self.config.output
        texts = {
            output / "table.md": as_markdown(table),
            output / "table.csv": as_csv(table),
            output / "runs.csv": runs_as_csv(table),
            output / "table.json": as_json(table),
        }
        for path, text in texts.items():
            publish(path, text.encode())
        plot = output / "curves.png"
        drawn = (plot,) if can_plot() and draw_curves(table, plot) else ()
        return AblateResult(table, (*texts, *drawn))

    def _row(self, run: _Run) -> RunRow:
        if run.plan.name not in self.rows:
            self.rows[run.plan.name] = self._measure(run)
        return self.rows[run.plan.name]

    def _measure(self, run: _Run) -> RunRow:
        is_last = self.plan.sweep.weights == "last"
        weights = run.folder.last_weights if is_last else run.folder.best_weights
        return RunRow(
            arm=run.plan.arm.name,
            seed=run.plan.seed,
            run=run.plan.name,
            evaluation=self.evaluator.measure(weights),
            person_views=run.person_views,
            hours=hours_of(run.folder),
            bytes_per_view=run.bytes_per_view,
            store_content=read_info(weights).store_content,
            curve=validation_curve(run.folder, run.batch_size),
        )


def _views_done(run: _Run) -> int:
    epochs = [line for line in run.folder.read_metrics() if line["event"] == "epoch"]
    return int(str(epochs[-1]["person_views"])) if epochs else 0


def _notes(plan: Plan, people: People, num_done: int, num_runs: int) -> tuple[str, ...]:
    weights = "those of the last epoch"
    if plan.sweep.weights == "best":
        weights = "the best by validation, chosen by the people that are reported"
    notes = [
        f"{counted(people.num_instances, 'person')}, flip test, ground-truth boxes; the weights "
        f"are {weights}.",
        "Differences are an arm minus its baseline, paired by person and seed, with a 95 % "
        "bootstrap interval over images and seeds.",
        "AP own score: poses ranked by the network's own score, 1 for an arm that trains none. "
        "Bytes a view: what the arm's loss terms read of the store, images not counted.",
    ]
    if num_done < num_runs:
        notes.append(f"NOT FINISHED: {num_done} of {num_runs} trainings.")
    return tuple(notes)


def _evaluator(config: AblateConfig, plan: Plan) -> tuple[Evaluator, People]:
    """Open the people that all trainings are reported on, which are the same for all arms."""
    reported = {_reported(run.config) for run in plan.runs}
    if len(reported) != 1:
        raise ConfigError(
            "the arms have different val_annotations; a sweep reports one set of people"
        )
    annotations, images = reported.pop()
    if annotations is None or images is None:
        raise ConfigError(
            "a sweep needs people to report; give --val-annotations and, where their images lie "
            "elsewhere, --val-images"
        )
    training = plan.runs[0].config
    people = read_people(annotations, images, training.people)
    evaluator = Evaluator(
        people,
        annotations,
        images,
        config.output / "evaluations",
        threshold=KEYPOINT_THRESHOLD,
        device=training.device,
    )
    return evaluator, people


def _reported(training: TrainStudentConfig) -> tuple[Path | None, Path | None]:
    return training.val_annotations, training.val_images or training.images


def _runs_of(config: AblateConfig, plan: Plan) -> list[_Run]:
    """Give every training that is chosen or was begun its length.

    Raises:
        DistilError, StoreError: one cannot be trained or continued.
    """
    opened: dict[str, tuple[int, int, float | None]] = {}
    runs = []
    for planned in plan.runs:
        folder = RunFolder(config.output / "runs" / planned.name)
        if planned.arm.name not in plan.chosen and not folder.config.is_file():
            continue  # it is neither trained nor shown
        training = planned.config
        source = TrainingSource(
            training.store,
            training.annotations,
            training.images,
            training.people,
            training.data,
            training.effective_loss.reads,
        )
        batch_size = training.optimisation.batch_size
        if batch_size is None:
            raise ConfigError(
                "optimisation.batch_size is auto, by which the arms of a sweep would differ; give "
                "it a number"
            )
        facts = (
            source,
            training.architecture,
            batch_size,
            training.effective_loss.token_projector,
        )
        if (key := str(facts)) not in opened:
            try:
                opened[key] = _open(*facts)
            except DistilError as error:
                raise type(error)(f"the arm {planned.arm.name!r}: {error}") from error
        num_keypoints, steps_per_epoch, num_bytes = opened[key]
        planned = _with_length(planned, plan.sweep.validations, steps_per_epoch, batch_size)
        require_same_settings(folder, planned.config, FREE_TO_DIFFER)
        runs.append(
            _Run(
                planned,
                folder,
                batch_size,
                planned.config.epochs * steps_per_epoch,
                num_keypoints,
                num_bytes,
                read_state(folder),
            )
        )
    return runs


def _open(
    source: TrainingSource, architecture: str, batch_size: int, has_projector: bool
) -> tuple[int, int, float | None]:
    """Return numbers of keypoints and of steps per epoch, and the bytes that are read of a view.

    Raises:
        DistilError, StoreError: the training would be refused.
    """
    views = source.open()
    num_keypoints = views.people.skeleton.num_keypoints
    with torch.device("meta"):
        student = build_student(architecture, num_keypoints)
    # A projector gives the student's tokens the shape of the stored ones, as in train-student.
    views.dataset(
        student.input_size_hw, views.token_shape if has_projector else student.token_shape
    )
    return num_keypoints, len(views.order(batch_size, seed=0)), source.bytes_per_view()


def _with_length(
    run: PlannedRun, validations: int, steps_per_epoch: int, batch_size: int
) -> PlannedRun:
    """Turn the run's number of person-views, where it has one, into epochs."""
    if run.arm.person_views is None:
        return run
    epochs = epochs_for(run.arm.person_views, steps_per_epoch, batch_size)
    every = max(1, round(epochs / validations))
    if "evaluate_every_epochs" in run.settings:
        every = run.config.evaluate_every_epochs
    return run.with_epochs(epochs, every)
