"""A run becomes one file that stands in for it; a file that fails is not left behind."""

import functools
import importlib.util
import json
import re
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from click.testing import CliRunner

from cli import main
from pipeline.coco.read_people import read_people
from pipeline.config import validate_config
from pipeline.errors import ConfigError, ExportError, RunFolderError
from pipeline.evaluation.inference_cost import measure_costs, time_files
from pipeline.export.hub import push_to_hub
from pipeline.export.parity import LARGEST_DIFFERENCE
from pipeline.export.student_file import StudentFile
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import resize_affine
from pipeline.prediction.sample_crops import crops_of_people, crops_of_store
from pipeline.settings import PeopleSettings
from pipeline.storage.files import file_sha256
from pipeline.teacher_store.reader import TeacherStore
from stages.compare import compare
from stages.evaluate import evaluate
from stages.export import export
from stages.settings.evaluation import CompareConfig, evaluation_of
from stages.settings.export import ExportConfig
from tests.support.evaluation_sample import SIZE_HW, Sample, draw_sample, save_network, write_store

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def time_a_little(files: Any, size_hw: Any) -> Any:
    """Batches of 2 in place of 64."""
    found = time_files(files, size_hw, {1: 1, 2: 1})
    return {name: {1: times[1], 64: times[2]} for name, times in found.items()}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches; the real ones are those of ``tests/pipeline/export``."""
    monkeypatch.setattr("stages.export.time_files", time_a_little)
    monkeypatch.setattr("pipeline.export.parity.CHECKED_BATCHES", (1, 4))


@pytest.fixture(scope="module")
def run_sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """People, and the run folder ``run`` of a student that learned nothing."""
    sample = draw_sample(tmp_path_factory.mktemp("sample"))
    run = sample.folder / "run"
    save_network(run / "checkpoints" / "best.safetensors", "distilpose-xxs")
    settings = {"store": None, "architecture": "distilpose-xxs", "images": str(sample.folder)}
    (run / "config.json").write_text(json.dumps(settings))
    events = [{"python": "3.11.1", "packages": {"torch": "2.9"}, "command": ["/secret/cli.py"]}]
    (run / "provenance.json").write_text(json.dumps(events))
    return sample


def configured(sample: Sample, output: Path, **settings: Any) -> ExportConfig:
    run = sample.folder / "run"
    return validate_config(ExportConfig, {"run_folder": run, "output": output, **settings})


def validation(sample: Sample) -> dict[str, Any]:
    return {"val_annotations": sample.annotations, "val_images": sample.folder}


@pytest.fixture(scope="module")
def exported(run_sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run as float32, with AP on its people."""
    output = tmp_path_factory.mktemp("exported") / "student.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.export.parity.CHECKED_BATCHES", (1, 4))
        patch.setattr("stages.export.time_files", time_a_little)
        config = configured(run_sample, output, licence="apache-2.0", **validation(run_sample))
        return export(config), output


def test_the_figures_are_of_every_precision_and_ap_of_both_sides(exported: Any) -> None:
    result, output = exported
    run, float32, float16 = result.rows
    assert [row.name for row in result.rows] == ["run", "float32", "float16"]
    assert float32.num_bytes == output.stat().st_size > 1.5 * float16.num_bytes
    assert run.mean_oks == pytest.approx(float32.mean_oks, abs=1e-3)
    assert run.ap == pytest.approx(float32.ap, abs=1e-3)
    assert float32.largest_difference < 1e-4 < float16.largest_difference
    assert min(float32.ms_batch_1, float32.ms_batch_64, float16.ms_batch_1) > 0
    assert result.written == (output, output.with_suffix(".md"))
    assert result.notes == ()


def test_the_card_says_data_settings_figures_licence_and_digests(
    exported: Any, run_sample: Sample
) -> None:
    result, output = exported
    card = output.with_suffix(".md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert f"| {' | '.join(result.rows[1].as_cells())} |" in card
    weights = run_sample.folder / "run" / "checkpoints" / "best.safetensors"
    for digest in (file_sha256(output), file_sha256(weights), "f" * 64):
        assert digest in card
    assert "people.json" in card
    assert "- torch: 2.9" in card
    assert "mean of the scores of 3 trained keypoints (indices 0, 5, 6)" in card
    assert str(run_sample.folder) not in card
    assert "/secret" not in card


def test_the_file_is_evaluated_in_place_of_its_run(exported: Any, run_sample: Sample) -> None:
    _, output = exported
    common = {"annotations": run_sample.annotations, "images": run_sample.folder}
    for flip_test in (True, False):
        options = {**common, "flip_test": flip_test}
        of_file = evaluate(evaluation_of({**options, "student": output})).report
        of_run = evaluate(evaluation_of({**options, "run_folder": run_sample.folder / "run"}))
        expected = of_run.report
        assert of_file.row.mean_oks == pytest.approx(expected.row.mean_oks, abs=1e-4)
        np.testing.assert_allclose(
            of_file.row.localisation.oks, expected.row.localisation.oks, atol=1e-3
        )
        assert of_file.score_rule == expected.score_rule
        same = {"epoch", "step", "store_fingerprint", "input_size", "padding", "flip_test"}
        for name in same:
            assert of_file.evaluated[name] == expected.evaluated[name], name
        assert of_file.evaluated["precision"] == "float32"
        assert of_file.evaluated["sha256"] == file_sha256(output)


def test_a_comparison_takes_the_file_beside_the_run(
    exported: Any, run_sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two arms of one architecture whose cost is measured apart."""
    monkeypatch.setattr("pipeline.evaluation.inference_cost.LARGE_BATCH", 2)
    few = functools.partial(measure_costs, rounds={1: 1, 2: 1})
    monkeypatch.setattr("pipeline.evaluation.comparison.measure_costs", few)
    monkeypatch.setattr("pipeline.evaluation.inference_cost.peak_bytes_of_onnx", lambda *_: 7)
    _, output = exported
    found = compare(
        CompareConfig(
            annotations=run_sample.annotations,
            images=run_sample.folder,
            arms=(("run", run_sample.folder / "run"), ("file", output)),
        )
    )
    run, file = found.arms
    assert (run.architecture, file.architecture) == (
        "distilpose-xxs",
        "distilpose-xxs, float32 in onnxruntime",
    )
    assert run.cost is not None
    assert file.cost is not None
    assert run.cost.num_parameters == file.cost.num_parameters
    assert run.cost.num_multiply_adds == file.cost.num_multiply_adds
    assert abs(found.differences[0].difference.mean) < 1e-4


def test_without_people_the_file_is_compared_on_generated_crops_and_it_is_said(
    run_sample: Sample, tmp_path: Path
) -> None:
    """By the command, at a fixed batch."""
    arguments = [
        "export",
        "--run-folder",
        run_sample.folder / "run",
        "--output",
        tmp_path / "s.onnx",
    ]
    result = CliRunner().invoke(main, [*map(str, arguments), "--batch", "3"])
    assert result.exit_code == 0, result.output
    assert "compared with torch on generated crops" in " ".join(result.output.split())
    assert StudentFile(tmp_path / "s.onnx").fixed_batch_size == 3


def test_a_file_that_is_not_its_run_is_not_left_behind(
    run_sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.export.largest_difference", lambda *_: 2e-4)
    with pytest.raises(ExportError, match=r"differs by 0\.0002, expected at most 0\.0001"):
        export(configured(run_sample, tmp_path / "s.onnx"))
    assert list(tmp_path.iterdir()) == []


def losing(monkeypatch: pytest.MonkeyPatch, before: float, after: float) -> None:
    figures = iter((before, after))

    def figures_of(*_: Any) -> Any:
        own_score = types.SimpleNamespace(AP=next(figures))
        return types.SimpleNamespace(own_score=own_score, mean_oks=0.5)

    monkeypatch.setattr("stages.export.compare_figures", figures_of)


@pytest.mark.parametrize(("after", "is_refused"), [(0.4889, True), (0.4901, False)])
def test_a_loss_of_ap_is_refused_beyond_the_limit_naming_both(
    run_sample: Sample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: float,
    is_refused: bool,
) -> None:
    losing(monkeypatch, 0.5, after)
    config = configured(run_sample, tmp_path / "s.onnx", **validation(run_sample))
    assert config.max_ap_loss == 0.01
    if not is_refused:
        assert export(config).rows[1].ap == after
        return
    with pytest.raises(ExportError, match=r"AP is 0\.5000 before and 0\.4889 as float32, a loss"):
        export(config)
    assert list(tmp_path.iterdir()) == []


def test_int8_is_calibrated_on_a_store_and_is_evaluated(run_sample: Sample, tmp_path: Path) -> None:
    store = write_store(draw_sample(tmp_path))
    output = tmp_path / "s.onnx"
    options = {"precision": "int8", "store": str(store), **validation(run_sample)}
    result = export(configured(run_sample, output, max_ap_loss=1.0, **options))
    run, float32, _, int8 = result.rows
    assert int8.num_bytes == output.stat().st_size < 0.45 * float32.num_bytes
    assert int8.largest_difference is not None
    assert int8.largest_difference > LARGEST_DIFFERENCE["float32"]
    assert int8.mean_oks == pytest.approx(run.mean_oks, abs=0.05)
    assert StudentFile(output).description.precision == "int8"
    assert "store_fingerprint" in output.with_suffix(".md").read_text()


def test_int8_needs_a_store(run_sample: Sample, tmp_path: Path) -> None:
    config = configured(run_sample, tmp_path / "s.onnx", precision="int8", **validation(run_sample))
    with pytest.raises(ConfigError, match="learned from none; give --store"):
        export(config)


def test_calibration_crops_are_those_of_the_evaluation(run_sample: Sample, tmp_path: Path) -> None:
    """From images, and of a store with crops the stored ones at the student's size."""
    store_path = write_store(draw_sample(tmp_path))
    people = read_people(run_sample.annotations, None, PeopleSettings())
    folder = run_sample.folder
    from_images = crops_of_people(people, folder, SIZE_HW, 1.25, 128)
    assert from_images.shape == (6, *SIZE_HW, 3)
    assert crops_of_people(people, folder, SIZE_HW, 1.25, 2).shape == (2, *SIZE_HW, 3)
    store = TeacherStore.open(store_path)
    np.testing.assert_array_equal(crops_of_store(store, folder, SIZE_HW, 1.25, 128), from_images)
    with pytest.raises(ConfigError, match="was written without crops, so its images are needed"):
        crops_of_store(store, None, SIZE_HW, 1.25, 128)


def test_a_teacher_is_not_exported(sample: Sample, tmp_path: Path) -> None:
    save_network(sample.folder / "run" / "checkpoints" / "best.safetensors", "tokenpose-xs")
    with pytest.raises(RunFolderError, match="holds a teacher"):
        export(configured(sample, tmp_path / "s.onnx"))


@pytest.mark.parametrize(
    ("module", "package", "message"),
    [
        (
            "pipeline.export.runtime",
            "onnx",
            "ONNX models need onnx, not installed here; install the extra onnx",
        ),
        (
            "pipeline.export.hub",
            "huggingface_hub",
            "needs huggingface_hub, not installed here; install the extra hub",
        ),
    ],
)
def test_a_missing_package_is_named_before_anything_is_done(
    run_sample: Sample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    package: str,
    message: str,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        f"{module}.importlib.util.find_spec", lambda name: None if name == package else find(name)
    )
    arguments = ["--run-folder", run_sample.folder / "run", "--output", tmp_path / "s.onnx"]
    line = ["export", *map(str, arguments), "--push-to-hub", "me/student"]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 1
    assert re.search(message, result.stderr)
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


class Hub:
    """What is asked of ``huggingface_hub.HfApi``."""

    asked: ClassVar[list[tuple[Any, ...]]] = []

    def create_repo(self, name: str, **options: Any) -> Any:
        self.asked.append((name, options))
        return types.SimpleNamespace(repo_id=f"me/{name}")

    def create_commit(self, repository: str, operations: Any, **_: Any) -> Any:
        self.asked.append((repository, [(o.path_in_repo, o.path_or_fileobj) for o in operations]))
        return types.SimpleNamespace(commit_url="https://hub/commit")


def test_file_and_card_are_pushed_as_one_commit_of_a_private_repository(
    run_sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once they are written."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr(Hub, "asked", [])
    output = tmp_path / "s.onnx"
    result = export(configured(run_sample, output, push_to_hub="student"))
    assert result.pushed_to == "https://hub/commit"
    assert Hub.asked == [
        ("student", {"private": True, "exist_ok": True}),
        ("me/student", [("s.onnx", str(output)), ("README.md", str(output.with_suffix(".md")))]),
    ]


def test_a_hub_that_refuses_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("no token\nwas found")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr(Hub, "create_repo", refuse)
    with pytest.raises(ExportError, match="was written, but not pushed to x: no token was found"):
        push_to_hub("x", Path("s.onnx"), Path("s.md"))


def test_stored_crops_are_resized_to_the_student(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those of view 0 of people that have one."""
    store = TeacherStore.open(write_store(draw_sample(tmp_path), failed=(1,)))
    stored = np.random.default_rng(0).integers(0, 256, (6, *SIZE_HW, 3), np.uint8)
    read: list[Any] = []

    def read_crops(rows: Any, views: Any) -> Any:
        read.append((rows.tolist(), views.tolist()))
        return stored[rows]

    monkeypatch.setattr(store, "read_crops", read_crops)
    monkeypatch.setattr(store, "optional", types.SimpleNamespace(crops="jpeg"))
    found = crops_of_store(store, None, (64, 48), 1.25, 128)
    assert read == [([0, 2, 3, 4, 5], [0] * 5)]
    resize = resize_affine(SIZE_HW, (64, 48))
    np.testing.assert_array_equal(found[1], warp_crop(stored[2], resize, (64, 48)))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["distilpose-lite", "distilpose-s"])
def test_every_size_exports_in_every_float(
    sample: Sample, tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trunk of timm with other statistics, and the published student."""
    monkeypatch.setattr("pipeline.export.parity.CHECKED_BATCHES", (1, 64))
    size_hw = (256, 192) if architecture == "distilpose-s" else SIZE_HW
    weights = sample.folder / "run" / "checkpoints" / "best.safetensors"
    save_network(weights, architecture, input_size_hw=size_hw)
    for precision in ("float32", "float16"):
        export(configured(sample, tmp_path / f"{precision}.onnx", precision=precision))
