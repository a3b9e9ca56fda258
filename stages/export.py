"""Run of a student -> one verified ONNX file, its figures and its model card."""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.coco.read_people import read_people
from pipeline.coco.skeletons import describe_missing_sigmas
from pipeline.errors import ConfigError, ExportError
from pipeline.evaluation.inference_cost import time_files
from pipeline.evaluation.inputs import store_facts, with_sigmas
from pipeline.evaluation.report import ComparisonRow, compare_figures
from pipeline.export.hub import push_to_hub
from pipeline.export.model_card import FiguresOfFile, model_card
from pipeline.export.parity import generated_crops, largest_difference, require_parity
from pipeline.export.quantisation import quantise
from pipeline.export.student_file import ExportedStudent, Precision, StudentFile
from pipeline.export.student_graph import export_student, with_description
from pipeline.machine import available_cores, choose_device
from pipeline.models.cost import count_multiply_adds, count_parameters
from pipeline.models.pose_networks import Student
from pipeline.prediction.estimators import ExportedEstimator, PoseEstimator, predict_people
from pipeline.prediction.networks import best_weights, student_estimator
from pipeline.prediction.sample_crops import crops_of_people, crops_of_store
from pipeline.progress import NO_PROGRESS, Progress, summed
from pipeline.runs.checkpoints import CheckpointInfo
from pipeline.runs.published_files import load_student
from pipeline.runs.run_folder import RunFolder
from pipeline.storage.files import file_sha256, publish
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teachers.opening import require_same_names
from stages.settings.export import ExportConfig
from store_schemas.errors import StoreError

CHECKED_PEOPLE = 64


@dataclass(frozen=True)
class ExportResult:
    """Figures of an export, and the files that it wrote."""

    rows: tuple[FiguresOfFile, ...]
    """The run, then every precision that was made of it, in order of their size."""
    written: tuple[Path, ...]
    notes: tuple[str, ...]
    """Facts that a reader of the figures must know, a sentence each."""
    pushed_to: str | None = None
    """Address of the commit on the hub; None: nothing was pushed."""


@dataclass(frozen=True)
class _Validation:
    """The people that AP is measured on."""

    people: People
    image_folder: Path
    info: CheckpointInfo

    def measure(
        self, estimator: PoseEstimator, on_progress: Callable[[int], None]
    ) -> ComparisonRow:
        predictions = predict_people(
            estimator,
            self.people,
            self.image_folder,
            padding=self.info.padding,
            on_progress=on_progress,
        )
        return compare_figures(self.people, predictions, self.info.rule)


def export(config: ExportConfig, progress: Progress = NO_PROGRESS) -> ExportResult:
    """Export the best weights of a run as ONNX, verify the file, and only then write it.

    progress: counts poses.

    Raises:
        DistilError: an input is at fault, or the file is not what the run is; nothing is written.
        StoreError: the store is at fault; nothing is written.
    """
    weights = config.source if config.run_folder is None else best_weights(config.run_folder)
    network, info, notes_on_file = load_student(weights)
    validation = _open_validation(config, info)
    calibration = _calibration_crops(config, network, info)
    crops, notes = _checked_crops(network, validation, calibration)
    notes = notes_on_file + notes

    # float32 and float16 are made in every case: what each precision costs is half the answer.
    description = ExportedStudent(
        network=info,
        precision="float32",
        batch_size=config.batch_size,
        weights_sha256=file_sha256(weights),
        num_parameters=count_parameters(network),
        num_multiply_adds=sum(count_multiply_adds(network)),
    )
    models: dict[Precision, bytes] = {"float32": export_student(network, description)}
    models["float16"] = export_student(network, _in(description, "float16"))
    if calibration is not None:
        quantised = quantise(
            models["float32"], calibration, config.calibration_percentile, config.batch_size
        )
        models["int8"] = with_description(quantised, _in(description, "int8"))
    students = {name: StudentFile(model, available_cores()) for name, model in models.items()}

    differences = {name: largest_difference(network, s, crops) for name, s in students.items()}
    require_parity(students[config.precision], differences[config.precision])
    accuracy: dict[str, ComparisonRow] = {}
    if validation is not None:
        device = choose_device(config.device)
        count = summed(progress, 2 * validation.people.num_instances)
        in_torch = student_estimator(network, info, device=str(device))
        accuracy["run"] = validation.measure(in_torch, count)
        network.cpu()
        exported = ExportedEstimator(students[config.precision])
        accuracy[config.precision] = validation.measure(exported, count)
        _require_accuracy(config, accuracy["run"], accuracy[config.precision])
    rows = [FiguresOfFile("run", weights.stat().st_size)]
    rows += _timed_rows(models, differences, network)
    rows = [_with_accuracy(row, accuracy.get(row.name)) for row in rows]

    card = config.output.with_suffix(".md")
    model = models[config.precision]
    publish(config.output, model)
    publish(card, _card(config, students[config.precision].description, rows, model).encode())
    pushed_to = None
    if config.push_to_hub is not None:
        pushed_to = push_to_hub(config.push_to_hub, config.output, card)
    return ExportResult(tuple(rows), (config.output, card), notes, pushed_to)


def _in(description: ExportedStudent, precision: Precision) -> ExportedStudent:
    return description.model_copy(update={"precision": precision})


def _open_validation(config: ExportConfig, info: CheckpointInfo) -> _Validation | None:
    if config.val_annotations is None or config.val_images is None:
        return None
    people = read_people(config.val_annotations, config.val_images, config.people)
    require_same_names(str(config.source), info.keypoint_names, people)
    people = with_sigmas(people, people.skeleton.sigmas or info.sigmas)
    note = describe_missing_sigmas(people.skeleton)
    if note is not None:
        raise ConfigError(f"the loss of AP cannot be measured: {note}")
    return _Validation(people, config.val_images, info)


def _calibration_crops(
    config: ExportConfig, network: Student, info: CheckpointInfo
) -> NDArray[np.uint8] | None:
    """Return the crops that int8 is calibrated on; None: it is not asked for."""
    if config.precision != "int8":
        return None
    run = _settings_of_run(config.source)
    location = config.store or run.get("store")
    if location is None:
        raise ConfigError(
            f"int8 is calibrated on the crops of a teacher store, and the run {config.source} "
            "learned from none; give --store"
        )
    images = config.images or (Path(str(run["images"])) if run.get("images") else None)
    return crops_of_store(
        TeacherStore.open(str(location), _teacher_of_run(run)),
        images,
        network.input_size_hw,
        info.padding,
        config.calibration_people,
    )


def _checked_crops(
    network: Student, validation: _Validation | None, calibration: NDArray[np.uint8] | None
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Return the crops on which files are compared with torch, and what a reader must know."""
    size_hw = network.input_size_hw
    if validation is not None:
        people, folder = validation.people, validation.image_folder
        padding = validation.info.padding
        return crops_of_people(people, folder, size_hw, padding, CHECKED_PEOPLE), ()
    if calibration is not None:
        return calibration, ()
    note = (
        "the file was compared with torch on generated crops, and its AP was not measured; give "
        "--val-annotations and --val-images for both"
    )
    return generated_crops(size_hw), (note,)


def _timed_rows(
    models: Mapping[Precision, bytes], differences: Mapping[Precision, float], network: Student
) -> list[FiguresOfFile]:
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, Path] = {name: Path(folder) / f"{name}.onnx" for name in models}
        for name, model in models.items():
            files[name].write_bytes(model)
        times = time_files(files, network.input_size_hw)
    return [
        FiguresOfFile(
            name,
            len(model),
            largest_difference=differences[name],
            ms_batch_1=times[name][1].minimum,
            ms_batch_64=times[name][64].minimum,
        )
        for name, model in models.items()
    ]


def _with_accuracy(row: FiguresOfFile, measured: ComparisonRow | None) -> FiguresOfFile:
    if measured is None:
        return row
    return replace(row, ap=measured.own_score.AP, mean_oks=measured.mean_oks)


def _require_accuracy(config: ExportConfig, run: ComparisonRow, exported: ComparisonRow) -> None:
    """Raise ExportError for an exported student that loses more AP than is allowed."""
    before, after = run.own_score.AP, exported.own_score.AP
    if before is None or after is None:
        raise ConfigError(
            f"{config.val_annotations}: AP is not defined (nobody to find); give other people"
        )
    if before - after > config.max_ap_loss:
        raise ExportError(
            f"AP is {before:.4f} before and {after:.4f} as {config.precision}, a loss of "
            f"{before - after:.4f}; expected at most {config.max_ap_loss:g}; nothing was written; "
            "export float16, or raise --max-ap-loss"
        )


def _card(
    config: ExportConfig, description: ExportedStudent, rows: list[FiguresOfFile], model: bytes
) -> str:
    run = RunFolder(config.source)
    settings = _settings_of_run(config.source)
    events = json.loads(run.provenance.read_bytes()) if run.provenance.is_file() else [{}]
    versions = {"python": events[0].get("python"), **events[0].get("packages", {})}
    validated = config.val_annotations
    found = description.network
    digests = {
        "this file": file_sha256(config.output),
        "weights of the run": description.weights_sha256,
        "teacher store, fingerprint": found.store_fingerprint,
        "teacher store, content": found.store_content,
    }
    return model_card(
        config.output.name,
        description,
        rows,
        licence=config.licence,
        measured_on=None if validated is None else validated.name,
        settings=settings,
        versions={name: version for name, version in versions.items() if version},
        teacher=_teacher_facts(config, settings),
        digests={name: digest for name, digest in digests.items() if digest},
    )


def _teacher_facts(config: ExportConfig, settings: Mapping[str, object]) -> Mapping[str, object]:
    """Return what the run's store says of its teacher; nothing where the store is not at hand."""
    location = config.store or settings.get("store")
    if location is None:
        return {}
    try:
        store = TeacherStore.open(str(location), _teacher_of_run(settings))
    except (StoreError, OSError):
        return {}
    facts = store_facts(store)
    return {"teacher": store.teacher, **{name: facts[name] for name in facts if name != "source"}}


def _settings_of_run(run_folder: Path) -> dict[str, object]:
    """Return the settings of a run as they were written; a later version may know others."""
    file = RunFolder(run_folder).config
    return dict(json.loads(file.read_bytes())) if file.is_file() else {}


def _teacher_of_run(settings: Mapping[str, object]) -> str | None:
    """Return the name of the first teacher that a run learned from; None: the only one."""
    data = settings.get("data")
    names = data.get("teachers") if isinstance(data, Mapping) else None
    return str(names[0]) if names else None
