"""Student, teacher, stored outputs or results -> COCO AP / AR, mean OKS, evaluation.json."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.coco.people import People
from pipeline.coco.poses import ScoreRule, coco_results
from pipeline.coco.read_people import PeopleSettings, read_people
from pipeline.coco.records import KeypointResult
from pipeline.coco.result_files import read_results
from pipeline.config import StageConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.people import people_to_predict, require_stored_people, with_sigmas
from pipeline.evaluation.report import EvaluationReport, compare_results
from pipeline.evaluation.stored_poses import describe_missing, read_stored_poses, store_facts
from pipeline.prediction.networks import (
    Facts,
    OpenedNetwork,
    best_weights,
    open_heatmap_teacher,
    open_student,
)
from pipeline.prediction.people import predict_people
from pipeline.prediction.pose_scores import instance_scores, without_duplicates
from pipeline.progress import OnProgress, summed
from pipeline.runs.run_folder import RunFolder
from pipeline.storage.files import publish
from pipeline.storage.folder import StoreLocation
from pipeline.teacher_store.cached_folder import open_for_reading
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teachers import TeacherSettings
from pipeline.teachers.opening import require_same_names
from pipeline.wording import counted

DEFAULT_THRESHOLD = 0.2

_SOURCES = ("run_folder", "weights", "teacher", "store", "predictions")
_NETWORKS = ("run_folder", "weights", "teacher")


class EvaluateConfig(StageConfig):
    """All settings of ``distil evaluate``."""

    run_folder: Path | None = None
    """A run of ``train-student``: its best weights."""
    weights: Path | None = None
    """A weights file of ``train-student``."""
    teacher: Path | None = None
    store: StoreLocation | None = None
    """A teacher store: the stored outputs of view 0."""
    teacher_name: str | None = None
    """Of a store: whose outputs; None: those of the only one."""
    store_cache: Path | None = None
    """A folder that its shards are copied to when they are first read."""
    predictions: Path | None = None
    """COCO keypoint results of any tool, taken as they are."""
    annotations: Path | None = None
    """The truth; None: the people that the store holds."""
    images: Path | None = None
    detections: Path | None = None
    """A detector's boxes; None: the boxes of the annotated people."""
    people: PeopleSettings = PeopleSettings()
    teacher_settings: TeacherSettings = TeacherSettings()
    """``flip_test`` in here is set by ``flip_test`` below."""
    flip_test: bool = True
    keypoint_threshold: Annotated[
        float | None, BeforeValidator(lambda given: None if given == "none" else given)
    ] = DEFAULT_THRESHOLD
    """Keypoint scores above it are averaged to a pose's score; None ("none" in TOML): all."""
    padding: float | None = Field(None, ge=1)
    """None: as the network was trained; 1.25 where its file does not say."""
    batch_size: int = Field(64, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Of a student."""
    min_ap: float | None = Field(None, ge=0, le=1)
    output: Path | None = None
    """Folder for evaluation.json and results.json; None: evaluation.json into the run folder."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            what = f"{' and '.join(given)} are given" if given else "nothing to evaluate is given"
            raise ValueError(f"{what}; give exactly one of {', '.join(_SOURCES)}")
        if self.annotations is None and self.store is None:
            raise ValueError(f"{given[0]} needs annotations; give the COCO file with the truth")
        if given[0] in _NETWORKS and self.images is None:
            raise ValueError(f"{given[0]} needs images; give the folder of the annotated images")
        if self.teacher_settings.flip_test and not self.flip_test:
            raise ValueError("teacher_settings.flip_test contradicts flip_test; set flip_test only")
        for name, reason in self._useless_settings(given[0]):
            raise ValueError(f"{name} has no effect with {given[0]}: {reason}; leave it out")
        return self

    def _useless_settings(self, source: str) -> list[tuple[str, str]]:
        """List the settings that would be ignored, each with the reason."""
        useless: list[tuple[str, str]] = []
        if source not in _NETWORKS:
            made = "its poses are made already"
            names = ("images", "detections", "padding")
            useless += [(name, made) for name in names if getattr(self, name) is not None]
            useless += [] if self.flip_test else [("flip_test", made)]
        if source != "store":
            of_store = [n for n in ("store_cache", "teacher_name") if getattr(self, n) is not None]
            useless += [(name, "it is for a store") for name in of_store]
        if source != "teacher" and self.teacher_settings != TeacherSettings():
            useless.append(("teacher_settings", "they are for a teacher"))
        if source == "predictions" and self.keypoint_threshold != DEFAULT_THRESHOLD:
            useless.append(("keypoint_threshold", "its poses have their score"))
        skeleton_only = PeopleSettings(skeleton=self.people.skeleton)
        if self.annotations is None and self.people != skeleton_only:
            useless.append(("people", "without annotations the store's own people count"))
        return useless


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


def evaluate(config: EvaluateConfig, on_progress: OnProgress = lambda *_: None) -> EvaluateResult:
    """Measure poses against the truth, and write evaluation.json and results.json if asked.

    on_progress: of poses.

    Raises:
        DistilError: an input is at fault; nothing is written.
        StoreError: so is the store.
    """
    evaluation_file, results_file = _targets(config)

    if config.predictions is not None:
        scored = _given_poses(config, config.predictions)
    elif config.store is not None:
        scored = _stored_poses(config, config.store, on_progress)
    else:
        scored = _estimated_poses(config, on_progress)

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


def _stored_poses(config: EvaluateConfig, path: str, on_progress: OnProgress) -> _Scored:
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
    count = summed(on_progress, store.people.num_instances)
    predictions = read_stored_poses(store, config.batch_size, count)
    results = coco_results(predictions, instance_scores(predictions, rule), people.category_id)
    return _Scored(people, results, rule, store_facts(store), tuple(notes))


def _estimated_poses(config: EvaluateConfig, on_progress: OnProgress) -> _Scored:
    assert config.images is not None
    people = _annotated_people(config)
    network = _open_network(config, people)
    require_same_names(str(network.path), network.skeleton.keypoint_names, people)
    people = with_sigmas(people, people.skeleton.sigmas or network.skeleton.sigmas)
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
        on_progress=summed(on_progress, boxed.num_instances),
    )
    scores = instance_scores(predictions, network.rule)
    if config.detections is not None:
        predictions, scores = without_duplicates(predictions, scores, people.skeleton)
    results = coco_results(predictions, scores, people.category_id)
    facts = {**network.facts, **box_facts, "padding": padding}
    return _Scored(people, results, network.rule, facts, notes)


def _annotated_people(config: EvaluateConfig) -> People:
    assert config.annotations is not None
    return read_people(config.annotations, config.images, config.people)


def _open_network(config: EvaluateConfig, people: People) -> OpenedNetwork:
    if config.teacher is not None:
        settings = config.teacher_settings.model_copy(update={"flip_test": config.flip_test})
        threshold = config.keypoint_threshold
        return open_heatmap_teacher(config.teacher, people.skeleton, settings, threshold=threshold)
    weights = best_weights(config.run_folder) if config.run_folder else config.weights
    assert weights is not None
    return open_student(
        weights,
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
