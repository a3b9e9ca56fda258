"""Student, teacher, stored outputs or results -> COCO AP / AR, mean OKS, evaluation.json."""

import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.coco.people import People
from pipeline.coco.pose_results import KeypointResult, coco_results
from pipeline.coco.read_people import read_people
from pipeline.coco.result_files import read_results
from pipeline.errors import ConfigError
from pipeline.evaluation.report import EvaluationReport, compare_results
from pipeline.evaluation.stored_poses import (
    describe_missing,
    read_stored_poses,
    require_stored_people,
    store_facts,
)
from pipeline.prediction.boxes import boxes_to_look_at, without_duplicates
from pipeline.prediction.networks import (
    EvaluatedNetwork,
    Facts,
    best_weights,
    open_evaluated_teacher,
    open_student,
    with_sigmas,
)
from pipeline.prediction.people import predict_people
from pipeline.prediction.pose_scores import ScoreRule, instance_scores
from pipeline.progress import NO_PROGRESS, Progress, summed
from pipeline.runs.run_folder import RunFolder
from pipeline.storage.files import publish
from pipeline.teacher_store.cached_folder import open_for_reading
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teachers.opening import require_same_names
from pipeline.wording import counted
from stages.settings.evaluation import EvaluateConfig


@dataclass(frozen=True)
class EvaluateResult:
    """What an evaluation found, and what it left on disk."""

    report: EvaluationReport
    notes: tuple[str, ...]
    """What the reader of the figures must know, a sentence each."""
    written: tuple[Path, ...]
    min_ap: float | None

    @property
    def gate_failed(self) -> str | None:
        """Say why ``min_ap`` was not reached; None if it was, or if there is none."""
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
    """Measure poses against the truth, and write evaluation.json and results.json if asked.

    progress: counts poses.

    Raises:
        DistilError: an input is at fault; nothing is written.
        StoreError: so is the store.
    """
    evaluation_file, results_file = _targets(config)

    if config.predictions is not None:
        scored = _given_poses(config, config.predictions)
    elif config.store is not None:
        scored = _stored_poses(config, config.store, progress)
    else:
        scored = _estimated_poses(config, progress)

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


def _given_poses(config: EvaluateConfig, path: Path) -> _Scored:
    """Take another tool's results as they are: no score is changed, no pose dropped."""
    people = _annotated_people(config)
    facts = {"source": "predictions", "predictions": str(path)}
    return _Scored(people, read_results(path, people), None, facts)


def _stored_poses(config: EvaluateConfig, path: str, progress: Progress) -> _Scored:
    name = config.teacher_name
    store = TeacherStore.open(open_for_reading(path, config.store_cache, name), name)
    people = store.people
    notes = [note for note in [describe_missing(store)] if note]
    if config.annotations is not None:
        people = _annotated_people(config)
        require_same_names(path, store.people.skeleton.keypoint_names, people)
        require_stored_people(store, people, str(config.annotations))
        if others := people.num_instances - store.people.num_instances:
            notes.append(f"not in the store, and so missed: {counted(others, 'annotated person')}")
    given, stored = config.people.skeleton.sigmas, store.people.skeleton.sigmas
    people = with_sigmas(people, given or people.skeleton.sigmas or stored)
    rule = ScoreRule(threshold=config.keypoint_threshold)
    count = summed(progress, store.people.num_instances)
    predictions = read_stored_poses(store, config.batch_size, count)
    results = coco_results(predictions, instance_scores(predictions, rule), people.category_id)
    return _Scored(people, results, rule, store_facts(store), tuple(notes))


def _estimated_poses(config: EvaluateConfig, progress: Progress) -> _Scored:
    assert config.images is not None
    people = _annotated_people(config)
    network = _open_network(config, people)
    people = with_sigmas(people, people.skeleton.sigmas or network.sigmas)
    boxes, box_facts, notes = boxes_to_look_at(
        people, config.detections, clip_boxes=config.people.clip_boxes
    )
    padding = network.padding if config.padding is None else config.padding
    predictions = predict_people(
        network.estimator,
        people,
        config.images,
        boxes,
        padding=padding,
        batch_size=config.batch_size,
        on_progress=summed(progress, len(boxes.image_index)),
    )
    scores = instance_scores(predictions, network.rule)
    if config.detections is not None:
        predictions, scores = without_duplicates(predictions, scores, people)
    results = coco_results(predictions, scores, people.category_id)
    facts = {**network.facts, **box_facts, "padding": padding}
    return _Scored(people, results, network.rule, facts, notes)


def _annotated_people(config: EvaluateConfig) -> People:
    assert config.annotations is not None
    return read_people(config.annotations, config.images, config.people)


def _open_network(config: EvaluateConfig, people: People) -> EvaluatedNetwork:
    if config.teacher is not None:
        settings = config.teacher_settings.model_copy(update={"flip_test": config.flip_test})
        threshold = config.keypoint_threshold
        return open_evaluated_teacher(config.teacher, people, settings, threshold=threshold)
    weights = best_weights(config.run_folder) if config.run_folder else config.weights
    assert weights is not None
    return open_student(
        weights,
        people,
        flip_test=config.flip_test,
        threshold=config.keypoint_threshold,
        device=config.device,
    )


def _targets(config: EvaluateConfig) -> tuple[Path | None, Path | None]:
    """Return where evaluation.json and results.json go; None: nowhere."""
    if config.output is None:
        return (RunFolder(config.run_folder).evaluation if config.run_folder else None), None
    if config.output.exists() and not config.output.is_dir():
        raise ConfigError(f"output {config.output} is a file; expected a folder; choose another")
    # Another tool's results are on disk already, perhaps under this very name.
    results = None if config.predictions is not None else config.output / "results.json"
    return config.output / "evaluation.json", results
