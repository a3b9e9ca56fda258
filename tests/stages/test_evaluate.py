"""What ``distil evaluate`` measures, and what of it is written, noted and shown."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from stages.commands.evaluation_tables import print_report
from stages.evaluate import evaluate
from tests.support.evaluation_sample import Sample, save_network, write_store
from tests.support.recorded_progress import RecordedProgress


def test_the_truth_as_predictions_gives_ap_1(sample: Sample) -> None:
    result = evaluate(sample.config(predictions=sample.write("results.json", sample.truth)))
    row = result.report.row
    assert row.own_score.AP == row.score_one.AP == pytest.approx(1.0)
    assert row.mean_oks == pytest.approx(1.0)
    assert row.localisation.mean_pck == 1.0
    assert row.own_score.APL is None


def test_predictions_are_taken_as_they_are_without_nms(sample: Sample) -> None:
    """Every pose twice: all are kept, and the second of each counts as a false alarm."""
    twice = [{**pose, "score": s} for pose in sample.truth for s in (0.9, 0.8)]
    many = twice + [{**sample.truth[0], "score": 0.1}] * 30
    config = sample.config(
        predictions=sample.write("results.json", many), output=sample.folder / "out"
    )
    result = evaluate(config)
    assert result.report.num_poses == 42
    assert result.report.score_rule is None
    assert [path.name for path in result.written] == ["evaluation.json"]


def test_evaluating_into_the_folder_of_the_predictions_leaves_them_alone(sample: Sample) -> None:
    path = sample.write("results.json", [{**pose, "tool": "x"} for pose in sample.truth])
    before = path.read_bytes()
    evaluate(sample.config(predictions=path, output=sample.folder))
    assert path.read_bytes() == before


def test_a_run_folder_is_evaluated_by_its_best_weights_and_keeps_the_figures(
    sample: Sample, student: Path
) -> None:
    progress = RecordedProgress()
    result = evaluate(
        sample.config(run_folder=sample.folder / "runs/a", images=sample.folder, batch_size=4),
        progress,
    )
    assert result.written == (sample.folder / "runs/a/evaluation.json",)
    content = json.loads(result.written[0].read_text())
    figures = ["AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL"]
    assert list(content)[:10] == figures
    assert content["APL"] is None
    assert content["evaluated"]["weights"] == str(student)
    assert content["evaluated"]["store_fingerprint"] == "f" * 64
    assert content["evaluated"]["padding"] == 1.25
    assert progress.updates == [(4, 6), (6, 6)]


@pytest.mark.parametrize("source", ["weights", "detections", "store"])
def test_results_json_evaluates_to_the_same_figures(
    sample: Sample, student: Path, source: str
) -> None:
    out = sample.folder / "out"
    settings: dict[str, Path] = {"weights": student, "images": sample.folder}
    if source == "detections":
        detections = [
            {"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": score}
            for a in sample.document["annotations"]
            for score in (0.5, 0.9)
        ]
        settings["detections"] = sample.write("boxes.json", detections)
    elif source == "store":
        settings = {"store": write_store(sample, failed=(1,))}
    first = evaluate(sample.config(**settings, output=out)).report
    again = evaluate(sample.config(predictions=out / "results.json")).report
    assert again.row.own_score == first.row.own_score
    assert again.row.score_one == first.row.score_one
    for name in ("oks", "keypoint_oks", "pck"):
        found = getattr(again.row.localisation, name)
        np.testing.assert_array_equal(found, getattr(first.row.localisation, name))


@pytest.mark.parametrize(
    ("score_rule", "kind", "scored"),
    [("learned", "learned", (0, 5, 6)), ("one", "one", None)],
)
def test_the_checkpoint_decides_how_poses_are_scored(
    sample: Sample, score_rule: str, kind: str, scored: tuple[int, ...] | None
) -> None:
    weights = save_network(sample.folder / "w.safetensors", score_rule=score_rule)
    rule = evaluate(sample.config(weights=weights, images=sample.folder)).report.score_rule
    assert rule is not None
    assert (rule.kind, rule.scored_keypoints) == (kind, scored)


def test_repeated_detections_of_a_person_become_one_pose(sample: Sample, student: Path) -> None:
    detections = [
        {"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": score}
        for a in sample.document["annotations"]
        for score in (0.5, 0.9, 0.7)
    ]
    detections.append({**detections[0], "category_id": 2})
    out = sample.folder / "out"
    result = evaluate(
        sample.config(
            weights=save_network(sample.folder / "w.safetensors", score_rule="one"),
            images=sample.folder,
            detections=sample.write("boxes.json", detections),
            output=out,
        )
    )
    results = json.loads((out / "results.json").read_text())
    # Two people stand apart in the image; a random network's poses in their boxes do as well.
    assert len(results) == 6
    assert {pose["score"] for pose in results} == {0.9}
    assert "annotation_id" not in results[0]
    assert result.notes == ("detections of another category than the annotations are left out: 1",)


@pytest.mark.parametrize(
    ("source", "architecture"), [("teacher", "tokenpose-xs"), ("weights", "distilpose-xs")]
)
def test_the_flip_test_is_on_unless_turned_off(
    sample: Sample, source: str, architecture: str
) -> None:
    path = save_network(sample.folder / "n.safetensors", architecture)
    on = evaluate(sample.config(**{source: path}, images=sample.folder))
    off = evaluate(sample.config(**{source: path}, images=sample.folder, flip_test=False))
    assert on.report.evaluated["flip_test"] is True
    assert off.report.evaluated["flip_test"] is False
    assert on.report.row.mean_oks != off.report.row.mean_oks


def test_stored_truth_mapped_back_gives_ap_1(sample: Sample) -> None:
    """With its own people, and with the annotation file."""
    store = write_store(sample)
    for annotations in (None, sample.annotations):
        result = evaluate(sample.config(store=store, annotations=annotations))
        row = result.report.row
        assert row.score_one.AP == row.own_score.AP == pytest.approx(1.0)
        assert result.report.row.mean_oks == pytest.approx(1.0, abs=1e-6)
        assert result.notes == ()
    facts = result.report.evaluated
    assert (facts["padding"], facts["flip_shift"], facts["teacher_sha256"]) == (1.1, 1, "a" * 64)
    assert len(str(facts["store_fingerprint"])) == len(str(facts["store_content"])) == 64


def test_people_without_a_stored_pose_are_counted_and_missed(sample: Sample) -> None:
    result = evaluate(sample.config(store=write_store(sample, failed=(1, 4)), annotations=None))
    assert result.report.num_poses == 4
    assert result.report.row.mean_oks == pytest.approx(4 / 6, abs=1e-6)
    assert result.notes == (
        "no stored pose of 2 of 6 people (2 image unreadable): they count as missed",
    )


@pytest.mark.parametrize("min_ap", [None, 0.2, 0.999])
def test_a_gate_that_is_reached_says_nothing(sample: Sample, min_ap: float | None) -> None:
    path = sample.write("results.json", sample.truth)
    assert evaluate(sample.config(predictions=path, min_ap=min_ap)).gate_failed is None


def test_a_gate_that_is_not_reached_says_so_after_everything_is_written(sample: Sample) -> None:
    path = sample.write("results.json", [])
    out = sample.folder / "out"
    result = evaluate(sample.config(predictions=path, min_ap=0.6, output=out))
    assert result.gate_failed == "AP is 0.0000, expected at least 0.6 (min_ap)"
    assert json.loads((out / "evaluation.json").read_text())["AP"] == 0


def test_the_report_fits_100_columns_and_shows_what_moves_ap(sample: Sample) -> None:
    result = evaluate(sample.config(store=write_store(sample, failed=(0,)), annotations=None))
    console = Console(file=io.StringIO(), width=100)
    print_report(console, result.report, result.notes)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    facts = result.report.evaluated
    assert max(map(len, shown.splitlines())) <= 100
    for text in ("AP, own score", "AP, score 1", "mean OKS", "AR50", "right_ankle", "PCK@0.2"):
        assert text in shown
    for name in ("store_fingerprint", "store_content", "teacher_sha256"):
        assert str(facts[name])[:12] in shown
        assert str(facts[name])[:13] not in shown
    assert "mean of the keypoint scores " in shown
    assert "scores above" not in shown
    assert "no stored pose of 1 of 6 people" in shown
