"""Student, teacher, teacher store or results -> COCO AP / AR, mean OKS, evaluation.json."""

import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.coco.people import People
from pipeline.coco.poses import ScoreRule, coco_results
from pipeline.coco.read_people import read_people
from pipeline.coco.records import KeypointResult
from pipeline.coco.result_files import read_results
from pipeline.coco.skeletons import describe_missing_sigmas
from pipeline.errors import ConfigError, PeopleError
from pipeline.evaluation.inputs import (
    describe_missing,
    people_to_predict,
    read_stored_poses,
    require_stored_people,
    store_facts,
    with_sigmas,
)
from pipeline.evaluation.report import EvaluationReport, compare_results
from pipeline.prediction.estimators import predict_people
from pipeline.prediction.networks import (
    Facts,
    OpenedNetwork,
    best_weights,
    open_heatmap_teacher,
    open_student,
    open_student_at,
)
from pipeline.prediction.pose_scores import instance_scores, without_duplicates
from pipeline.progress import NO_PROGRESS, Progress, summed
from pipeline.runs.run_folder import RunFolder
from pipeline.storage.files import publish
from pipeline.teacher_store.cached_folder import open_for_reading
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teachers.opening import require_same_names
from pipeline.wording import counted
from stages.settings.evaluation import (
    EvaluateConfig,
    EvaluateExported,
    EvaluatePredictions,
    EvaluateRun,
    EvaluateStore,
    EvaluateTeacher,
    EvaluateWeights,
)

NetworkConfig = EvaluateRun | EvaluateWeights | EvaluateExported | EvaluateTeacher


@dataclass(frozen=True)
class EvaluateResult:
    """Figures of an evaluation, and the files that it wrote."""

    report: EvaluationReport
    notes: tuple[str, ...]
    """Facts that a reader of the figures must know, a sentence each."""
    written: tuple[Path, ...]
    min_ap: float | None

    @property
    def gate_failed(self) -> str | None:
        """The reason why ``min_ap`` was not reached; None if it was, or if there is none."""
        found = self.report.row.own_score.AP
        if self.min_ap is None or (found is not None and found >= self.min_ap):
            return None
        shown = "not defined (nobody to find)" if found is None else f"{found:.4f}"
        return f"AP is {shown}, expected at least {self.min_ap:g} (min_ap)"


@dataclass(frozen=True)
class _Scored:
    """Poses with their scores, and the people they are compared with."""

    people: People
    results: list[KeypointResult]
    rule: ScoreRule | None
    facts: Facts
    notes: tuple[str, ...] = ()


def evaluate(config: EvaluateConfig, progress: Progress = NO_PROGRESS) -> EvaluateResult:
    """Measure poses against the truth, and write evaluation.json and results.json where configured.

    progress: counts poses.

    Raises:
        DistilError: an input is at fault; nothing is written.
        StoreError: the store is at fault; nothing is written.
    """
    evaluation_file, results_file = _targets(config)

    match config:
        case EvaluatePredictions():
            scored = _given_poses(config)
        case EvaluateStore():
            scored = _stored_poses(config, progress)
        case _:
            scored = _predicted_poses(config, progress)

    people = scored.people
    truth = {} if config.annotations is None else {"annotations": str(config.annotations)}
    report = EvaluationReport(
        row=compare_results(people, scored.results),
        keypoint_names=people.skeleton.keypoint_names,
        num_images=len(people.image_id),
        num_people=people.num_instances,
        num_poses=len(scored.results),
        score_rule=scored.rule,
        evaluated={**scored.facts, **truth},
    )

    contents = {results_file: json.dumps(scored.results), evaluation_file: report.to_json()}
    written = {path: text for path, text in contents.items() if path is not None}
    for path, text in written.items():
        publish(path, text.encode())
    return EvaluateResult(report, scored.notes, tuple(written), config.min_ap)


def _given_poses(config: EvaluatePredictions) -> _Scored:
    """Read another tool's results as they are: no score is changed, no pose dropped."""
    people = read_people(config.annotations, None, config.people)
    notes = _notes_on_sigmas(people, config)
    facts = {"source": "predictions", "predictions": str(config.predictions)}
    return _Scored(people, read_results(config.predictions, people), None, facts, notes)


def _stored_poses(config: EvaluateStore, progress: Progress) -> _Scored:
    name = config.teacher_name
    store = TeacherStore.open(open_for_reading(config.store, config.store_cache, name), name)
    people = stored_people = store.people.as_evaluated()
    if not people.num_instances:
        raise PeopleError(
            f"{config.store}: nobody to compare with: none of the store's "
            f"{counted(store.people.num_instances, 'person')} has a labelled keypoint; evaluate a "
            "student or the teacher on labelled people"
        )
    notes = [note for note in [describe_missing(store, only_labelled=True)] if note]
    if others := store.people.num_instances - people.num_instances:
        notes.append(f"not evaluated: {counted(others, 'person')} of the store without labels")
    if config.annotations is not None:
        people = read_people(config.annotations, None, config.people)
        require_same_names(config.store, store.people.skeleton.keypoint_names, people)
        require_stored_people(store, people, str(config.annotations))
        if others := people.num_instances - stored_people.num_instances:
            notes.append(f"not in the store, and so missed: {counted(others, 'annotated person')}")
    given, stored = config.people.skeleton.sigmas, store.people.skeleton.sigmas
    people = with_sigmas(people, given or people.skeleton.sigmas or stored)
    notes += _notes_on_sigmas(people, config)
    rule = ScoreRule(threshold=config.keypoint_threshold)
    count = summed(progress, stored_people.num_instances)
    predictions = read_stored_poses(store, config.batch_size, count, only_labelled=True)
    results = coco_results(predictions, instance_scores(predictions, rule), people.category_id)
    return _Scored(people, results, rule, store_facts(store), tuple(notes))


def _predicted_poses(config: NetworkConfig, progress: Progress) -> _Scored:
    people = read_people(config.annotations, config.images, config.people)
    network = _open_network(config, people)
    require_same_names(str(network.path), network.skeleton.keypoint_names, people)
    people = with_sigmas(people, people.skeleton.sigmas or network.skeleton.sigmas)
    notes_on_sigmas = _notes_on_sigmas(people, config)
    if config.detections is not None and not people.skeleton.sigmas:
        raise ConfigError(
            "detections need sigmas: repeated poses of a person are found by OKS, and the skeleton "
            f"has no sigmas for {counted(people.skeleton.num_keypoints, 'keypoint')}; give sigmas "
            "in people.skeleton in --config, or leave detections out"
        )
    boxed, box_facts, notes = people_to_predict(
        people, config.detections, clip_boxes=config.people.clip_boxes
    )
    padding = network.padding if config.padding is None else config.padding
    predictions = predict_people(
        network.estimator,
        boxed,
        config.images,
        padding=padding,
        batch_size=config.batch_size,
        on_progress=summed(progress, boxed.num_instances),
    )
    scores = instance_scores(predictions, network.rule)
    if config.detections is not None:
        predictions, scores = without_duplicates(predictions, scores, people.skeleton)
    results = coco_results(predictions, scores, people.category_id)
    facts = {**network.facts, **box_facts, "padding": padding}
    notes = network.notes + notes + notes_on_sigmas
    return _Scored(people, results, network.rule, facts, notes)


def _notes_on_sigmas(people: People, config: EvaluateConfig) -> tuple[str, ...]:
    """Return the note on what is not measured; refuse an AP to be reached if that is not."""
    note = describe_missing_sigmas(people.skeleton)
    if note is None:
        return ()
    if config.min_ap is not None:
        raise ConfigError(f"min_ap is {config.min_ap:g}, but AP cannot be measured: {note}")
    return (note,)


def _open_network(config: NetworkConfig, people: People) -> OpenedNetwork:
    if isinstance(config, EvaluateTeacher):
        settings = config.teacher_settings.model_copy(
            update={"flip_test": config.flip_test, "device": config.device}
        )
        threshold = config.keypoint_threshold
        return open_heatmap_teacher(config.teacher, people.skeleton, settings, threshold=threshold)
    if isinstance(config, EvaluateExported):
        return open_student_at(
            config.student, flip_test=config.flip_test, threshold=config.keypoint_threshold
        )
    return open_student(
        config.weights if isinstance(config, EvaluateWeights) else best_weights(config.run_folder),
        flip_test=config.flip_test,
        threshold=config.keypoint_threshold,
        device=config.device,
    )


def _targets(config: EvaluateConfig) -> tuple[Path | None, Path | None]:
    """Return where evaluation.json and results.json go; None: nowhere."""
    if config.output is None:
        run_folder = config.run_folder if isinstance(config, EvaluateRun) else None
        return (None if run_folder is None else RunFolder(run_folder).evaluation), None
    if config.output.exists() and not config.output.is_dir():
        raise ConfigError(f"output {config.output} is a file; expected a folder; choose another")
    # Another tool's results are on disk already, perhaps under this very name.
    is_given = isinstance(config, EvaluatePredictions)
    results = None if is_given else config.output / "results.json"
    return config.output / "evaluation.json", results
