"""Run folders -> one HTML file: curves, figures with intervals, pictures, settings, provenance."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.coco.people import People
from pipeline.errors import ConfigError
from pipeline.evaluation.kept_evaluations import Evaluation, Evaluator
from pipeline.evaluation.reliability import measure_reliability
from pipeline.progress import Progress, summed
from pipeline.report.charts import reliability_chart
from pipeline.report.curves import loss_charts, validation_charts
from pipeline.report.figures import figure_rows
from pipeline.report.page import Page, render
from pipeline.report.people import Group, ShownPerson, choose_people, draw_people
from pipeline.report.run_facts import RunFacts, names_of, read_run, require_student
from pipeline.report.settings import setting_rows
from pipeline.report.teacher import teacher_poses
from pipeline.runs.run_folder import RunFolder, provenance
from pipeline.settings import KEYPOINT_THRESHOLD
from pipeline.storage.files import file_sha256, publish
from pipeline.storage.folder import open_folder
from pipeline.teacher_store.description import facts_of_store
from pipeline.teacher_store.inspection import summarise_store
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teachers.opening import require_same_names
from pipeline.training.settings import FreshViewSettings
from stages.run_people import people_of_run
from stages.settings.report import ReportConfig
from stages.settings.training import TrainStudentConfig

_INPUTS = ("store", "annotations", "images", "val_annotations", "val_images")
"""Settings of a training without a default that would mean anything."""


@dataclass(frozen=True)
class _Reported:
    """The people that all runs are measured on."""

    people: People
    annotations: Path
    image_folder: Path


def report(config: ReportConfig, progress: Progress, command: Sequence[str]) -> Path:
    """Measure the runs on the same people and write the page; return where it lies.

    A network that was measured before on these people is not measured again.

    progress: counts poses.
    command: the command line that made the report.

    Raises:
        DistilError: a run, the people or the teacher are at fault.
        StoreError: the store is.
    """
    for root in config.run_folders:
        require_student(root)
    trainings = [RunFolder(root).read_config(TrainStudentConfig) for root in config.run_folders]
    runs = [
        read_run(name, root, training, training.optimisation.crops_in_batch)
        for name, root, training in zip(
            names_of(config.run_folders), config.run_folders, trainings, strict=True
        )
    ]
    reported = _reported_people(config, trainings, runs)
    people = reported.people
    store = None
    if config.store is not None:
        store = TeacherStore.open(config.store, config.teacher_name)
        require_same_names(config.store, store.people.skeleton.keypoint_names, people)

    evaluations = _evaluate(config, runs, reported, progress)
    names = [run.name for run in runs]
    figures = figure_rows(names, evaluations, people.image_index, config.seed)
    reliability = [
        reliability_chart(place, run.name, measure_reliability(found.scores, found.oks))
        for place, (run, found) in enumerate(zip(runs, evaluations, strict=True))
        if found.score_kind != "one"
    ]
    groups = choose_people([found.oks for found in evaluations], names[0], config.num_people)
    shown, notes = _draw_groups(groups, runs, evaluations, reported, store)

    summary = [] if config.store is None else _store_facts(config.store, config.teacher_name)
    page = Page(
        runs=runs,
        figures=figures,
        annotations=reported.annotations,
        annotations_sha256=file_sha256(reported.annotations),
        num_people=people.num_instances,
        num_images=len(people.image_id),
        keypoint_names=people.skeleton.keypoint_names,
        num_labelled=people.is_labelled.sum(axis=0).tolist(),
        loss_charts=loss_charts(runs),
        validation_charts=validation_charts(runs),
        reliability=reliability,
        unscored=[
            run.name
            for run, found in zip(runs, evaluations, strict=True)
            if found.score_kind == "one"
        ],
        people=shown,
        notes_on_people=notes,
        setting_rows=setting_rows(trainings, [_defaults_of(training) for training in trainings]),
        store=summary,
        made=provenance(command=list(command)),
    )
    publish(config.output, render(page).encode())
    return config.output


def _reported_people(
    config: ReportConfig, trainings: Sequence[TrainStudentConfig], runs: Sequence[RunFacts]
) -> _Reported:
    """Read the people that all runs are measured on: those given, or those of every validation.

    Raises:
        ConfigError: the runs name no people, or were validated on different ones.
        PeopleError: a run has other keypoints.
    """
    first = trainings[0]
    if config.people is not None:
        first = first.model_copy(update={"people": config.people})
    given = (config.annotations, config.images)
    people, folder, _ = people_of_run(first, config.run_folders[0], runs[0].info.skeleton, *given)
    annotations = config.annotations or first.val_annotations
    assert annotations is not None  # else the people would have been refused
    digest = file_sha256(annotations)
    for root, training, run in zip(config.run_folders, trainings, runs, strict=True):
        require_same_names(str(root), run.info.skeleton.keypoint_names, people)
        own = training.val_annotations
        if config.annotations is not None or own == annotations:
            continue
        if own is None or not own.exists() or file_sha256(own) != digest:
            raise ConfigError(
                f"the run {root} was not validated on the people of {config.run_folders[0]} "
                f"({own or 'no annotations'}, not {annotations}); give --annotations and --images "
                "of the people that all runs are to be measured on"
            )
    return _Reported(people, annotations, folder)


def _evaluate(
    config: ReportConfig, runs: Sequence[RunFacts], reported: _Reported, progress: Progress
) -> list[Evaluation]:
    """Measure the best weights of every run, or read what was measured of them before."""
    add = summed(progress, len(runs) * reported.people.num_instances)
    found = []
    for run in runs:
        evaluator = Evaluator(
            reported.people,
            reported.annotations,
            reported.image_folder,
            config.evaluations or run.folder.evaluations,
            threshold=KEYPOINT_THRESHOLD,
            device=config.device,
        )
        found.append(evaluator.measure(run.weights, add))
    return found


def _draw_groups(
    groups: Sequence[Group],
    runs: Sequence[RunFacts],
    evaluations: Sequence[Evaluation],
    reported: _Reported,
    store: TeacherStore | None,
) -> tuple[list[tuple[str, list[ShownPerson]]], list[str]]:
    """Return the titles of the groups with their people, and notes that a reader must know."""
    poses = {run.name: e.keypoints for run, e in zip(runs, evaluations, strict=True)}
    people, folder = reported.people, reported.image_folder
    rows = np.concatenate([group.rows for group in groups])
    teacher, notes = None, []
    if store is not None:
        teacher = teacher_poses(store, people, folder, rows)
        notes.append(
            f"The teacher is not drawn: {store.path} does not hold these people, and its teacher "
            "is not where it was."
            if teacher is None
            else f"Teacher: {teacher.name}."
        )
    shown = draw_people(people, folder, rows, poses, teacher)
    titled = []
    for group in groups:
        titled.append((group.title, shown[: len(group.rows)]))
        shown = shown[len(group.rows) :]
    return titled, notes


def _store_facts(store: str, teacher: str | None) -> list[tuple[str, str]]:
    return facts_of_store(summarise_store(open_folder(store), teacher))


def _defaults_of(training: TrainStudentConfig) -> TrainStudentConfig:
    """Return the settings of a training with the same inputs and nothing but defaults."""
    data = type(training.data)()
    if training.store is not None and not isinstance(data, FreshViewSettings):
        data = data.with_order(training.store)
    inputs = {name: getattr(training, name) for name in _INPUTS}
    # Not validated: without distillation a training may have no store, which the default needs.
    return TrainStudentConfig.model_construct(data=data, **inputs)
