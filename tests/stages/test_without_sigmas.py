"""A skeleton without OKS fall-offs is trained and measured all the same, by PCK."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.runs.run_folder import RunFolder
from stages.commands.evaluation_tables import print_comparison, print_report
from stages.compare import compare
from stages.evaluate import evaluate
from stages.settings.evaluation import CompareConfig
from stages.settings.training import TrainStudentConfig
from stages.train_student import train_student
from tests.support.evaluation_sample import NAMES, Sample, save_network, write_store

NOTE = (
    "PCK only, no AP, AR or OKS: OKS needs one sigma per keypoint and the skeleton has none; give "
    "sigmas in people.skeleton in --config"
)
OTHER_NAMES = ("chin", *NAMES[1:])
SIGMAS = {"skeleton": {"sigmas": (0.1,) * 17}}


@pytest.fixture
def unknown(sample: Sample) -> Sample:
    """The sample with keypoints that have no sigmas built in."""
    document = sample.document
    document["categories"][0]["keypoints"] = OTHER_NAMES
    sample.write("people.json", document)
    return sample


def _network(path: Path, architecture: str = "distilpose-xs") -> Path:
    return save_network(path, architecture, keypoint_names=OTHER_NAMES, sigmas=())


def _settings(sample: Sample, source: str) -> dict[str, Any]:
    match source:
        case "predictions":
            return {"predictions": sample.write("given.json", sample.truth)}
        case "store":
            return {"store": write_store(sample), "annotations": None}
        case "teacher":
            path = _network(sample.folder / "t.safetensors", "tokenpose-xs")
            return {"teacher": path, "images": sample.folder}
        case _:
            return {"weights": _network(sample.folder / "w.safetensors"), "images": sample.folder}


@pytest.mark.parametrize("source", ["predictions", "store", "teacher", "weights"])
def test_evaluation_measures_pck_alone(unknown: Sample, source: str) -> None:
    settings = _settings(unknown, source)
    out = unknown.folder / "out"
    result = evaluate(unknown.config(**settings, output=out))
    given = evaluate(unknown.config(**settings, people=SIGMAS))
    assert given.notes == ()
    assert given.report.row.own_score.AP is not None
    assert result.notes == (NOTE,)
    pck = result.report.row.localisation.pck
    np.testing.assert_array_equal(pck, given.report.row.localisation.pck)
    assert (result.report.row.mean_pck == 1) == (source in ("predictions", "store"))

    content = json.loads((out / "evaluation.json").read_text())
    assert list(content) == list(json.loads(given.report.to_json()))
    figures = [content[name] for name in result.report.row.own_score.as_dict()]
    assert {*figures, *content["score_one"].values(), content["mean_oks"]} == {None}
    assert content["mean_pck"] == result.report.row.mean_pck
    assert content["keypoints"]["chin"] == {"oks": None, "pck": pck[0]}


def test_the_report_has_dashes_and_the_note(unknown: Sample) -> None:
    result = evaluate(unknown.config(**_settings(unknown, "predictions")))
    console = Console(file=io.StringIO(), width=100, record=True)
    print_report(console, result.report, result.notes)
    shown = console.export_text()
    assert " ".join(NOTE.split()) in " ".join(shown.split())
    assert "nan" not in shown
    assert "mean 1.000 -" in " ".join(shown.split())


@pytest.mark.parametrize("source", ["predictions", "store", "teacher", "weights"])
def test_an_ap_that_cannot_be_measured_cannot_be_asked_for(unknown: Sample, source: str) -> None:
    out = unknown.folder / "out"
    config = unknown.config(**_settings(unknown, source), min_ap=0.5, output=out)
    with pytest.raises(
        ConfigError, match=r"min_ap is 0\.5, but AP cannot be measured: .*sigmas in"
    ):
        evaluate(config)
    assert not out.exists()


def test_detections_need_sigmas(unknown: Sample) -> None:
    boxes = [
        {"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": 0.5}
        for a in unknown.document["annotations"]
    ]
    settings = _settings(unknown, "weights")
    config = unknown.config(**settings, detections=unknown.write("boxes.json", boxes))
    with pytest.raises(
        ConfigError, match=r"detections need sigmas: .* by OKS, .* no sigmas for 17"
    ):
        evaluate(config)


def test_a_comparison_shows_pck(unknown: Sample) -> None:
    for name in "ab":
        _network(RunFolder(unknown.folder / name).best_weights)
    table = unknown.folder / "table.json"
    fields: dict[str, object] = {
        "annotations": unknown.annotations,
        "images": unknown.folder,
        "arms": tuple((name, unknown.folder / name) for name in "ab"),
        "mean_pose": unknown.annotations,
        "output": table,
    }
    found = compare(load_config(CompareConfig, fields=fields))
    assert (found.differences, found.notes) == ([], (NOTE,))
    arms = json.loads(table.read_text())["arms"]
    assert [arm["mean_oks"] for arm in arms] == [None] * 3
    assert [arm["mean_pck"] for arm in arms] == [arm.figures.mean_pck for arm in found.arms]
    assert arms[0]["mean_pck"] > 0
    console = Console(file=io.StringIO(), width=80, record=True)
    print_comparison(console, found.arms, found.differences, found.num_people, found.notes)
    shown = " ".join(console.export_text().split())
    assert "AP AP, score 1 mean OKS PCK@0.2" in shown
    assert f"mean pose - - - {arms[0]['mean_pck']:.3f}" in shown
    assert NOTE in shown


def test_training_keeps_the_weights_of_the_highest_pck(
    unknown: Sample, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fields: dict[str, object] = {
        "architecture": "distilpose-xs",
        "epochs": 2,
        "evaluate_every_epochs": 1,
        "num_loader_workers": 0,
        "num_threads": 1,
        "device": "cpu",
        "optimisation": {"batch_size": 2, "warmup_steps": 1},
        "distillation": False,
        "annotations": unknown.annotations,
        "images": unknown.folder,
        "val_annotations": unknown.annotations,
    }
    said: list[str] = []
    caplog.set_level(logging.INFO)
    run = RunFolder(tmp_path / "run")
    config = load_config(TrainStudentConfig, fields=fields)
    result = train_student(config, run.root, say=said.append)
    assert f"{NOTE}; the best weights are those of the highest PCK" in said
    lines = [line for line in run.read_metrics() if line["event"] == "validation"]
    assert [(line["AP"], line["AR"], line["mean_oks"]) for line in lines] == [(None,) * 3] * 2
    assert result.best_ap is None
    assert result.best_pck == max(float(str(line["mean_pck"])) for line in lines)
    assert "best weights: epoch 1, by its mean_pck of" in caplog.text
