"""AP and AR, held against pycocotools run by itself on the same files."""

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.coco.people import People
from pipeline.coco.poses import PosePredictions, ScoreRule, coco_results, results_with_score_one
from pipeline.coco.read_people import read_people
from pipeline.coco.records import KeypointResult
from pipeline.coco.result_files import read_results
from pipeline.errors import ConfigError, PeopleError
from pipeline.evaluation.coco_evaluation import CocoFigures, coco_ground_truth, evaluate_results
from pipeline.evaluation.report import EvaluationReport, compare_figures, compare_results
from pipeline.settings import PeopleSettings

PeopleMaker = Callable[..., People]


def _predictions(people: People, noise: float = 0.0, seed: int = 0) -> PosePredictions:
    """Return the truth moved by noise, relative to each person's size, with random scores."""
    generator = np.random.default_rng(seed)
    n, k = people.is_labelled.shape
    moved = generator.normal(0, 1, (n, k, 2)) * noise * np.sqrt(people.area)[:, None, None]
    scores = generator.random((n, k)) if noise else np.ones((n, k))
    return PosePredictions(
        image_id=people.image_id[people.image_index],
        annotation_id=people.instance_id,
        keypoints=np.nan_to_num(people.keypoints[..., :2].astype(np.float64)) + moved,
        keypoint_scores=scores,
        box_score=np.ones(n),
        crop_area=people.area,
    )


def _results(people: People, noise: float = 0.0, seed: int = 0) -> list[KeypointResult]:
    predictions = _predictions(people, noise, seed)
    return coco_results(predictions, predictions.keypoint_scores.mean(axis=1), people.category_id)


def _pycocotools(annotations: Path, results: Path, sigmas: Any) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "keypoints")
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def _is_one(value: float | None) -> bool:
    # pycocotools adds one eps to the denominator of precision.
    return value is not None and abs(value - 1) < 1e-12


def _as_stats(figures: CocoFigures) -> list[float]:
    return [-1.0 if value is None else value for value in figures.as_dict().values()]


@pytest.fixture(scope="module")
def coco_sample(shared_folder: Path) -> tuple[Path, People]:
    path = shared_folder / "data/coco_sample/person_keypoints.json"
    return path, read_people(path, None, PeopleSettings())


def test_the_truth_as_prediction_has_ap_one(make_people: PeopleMaker) -> None:
    people = make_people((0, 0, 1, 2), ignored_boxes=[(1, 1500, 1500, 50, 60)])
    figures = evaluate_results(people, _results(people))
    assert _is_one(figures.AP)
    assert figures.AR == 1


def test_no_result_has_ap_zero_and_nobody_to_find_has_none(make_people: PeopleMaker) -> None:
    empty = evaluate_results(make_people(), [])
    assert (empty.AP, empty.AR) == (0, 0)
    nobody = evaluate_results(make_people(()), [])
    assert set(nobody.as_dict().values()) == {None}


def test_ap_is_that_of_pycocotools_on_the_files(tmp_path: Path, make_people: PeopleMaker) -> None:
    people = make_people(
        tuple(np.repeat(np.arange(20), 3)), num_images=22, ignored_boxes=[(21, 5, 5, 80, 90)]
    )
    results = _results(people, noise=0.06)
    truth = coco_ground_truth(people).dataset
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    expected = _pycocotools(
        tmp_path / "truth.json", tmp_path / "results.json", people.skeleton.sigmas
    )
    assert 0.1 < expected[0] < 0.9
    np.testing.assert_allclose(
        _as_stats(evaluate_results(people, results)), expected, atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("has_boxes", [True, False])
def test_boxes_of_results_give_the_areas_as_in_pycocotools(
    tmp_path: Path, make_people: PeopleMaker, has_boxes: bool
) -> None:
    """Boxes of another size class than the keypoints move figures of medium and large people."""
    people = make_people(tuple(np.repeat(np.arange(20), 3)), num_images=20)
    keypoints_only = results = _results(people, noise=0.06)
    if has_boxes:
        boxes = [[0, 0, 10 + 5 * n, 20 + 5 * n] for n in range(len(results))]
        results = [{**r, "bbox": box} for r, box in zip(results, boxes, strict=True)]  # type: ignore[typeddict-item]
    (tmp_path / "truth.json").write_text(json.dumps(coco_ground_truth(people).dataset))
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    expected = _pycocotools(tmp_path / "truth.json", path, people.skeleton.sigmas)
    row = compare_results(people, read_results(path, people))
    assert _as_stats(row.own_score) == expected
    without = compare_results(people, keypoints_only)
    for with_box, of_keypoints in (
        (row.own_score, without.own_score),
        (row.score_one, without.score_one),
    ):
        assert (with_box != of_keypoints) == has_boxes


@pytest.mark.shared
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_ap_on_coco_is_that_of_pycocotools_on_the_annotation_file(
    tmp_path: Path, coco_sample: tuple[Path, People], noise: float
) -> None:
    annotations, people = coco_sample
    results = _results(people, noise)
    # A detection on every ignore region: the figures agree only if it is disregarded alike.
    for region in range(len(people.ignored.annotation_id)):
        x, y, w, h = people.ignored.bbox_xywh[region]
        image_id = int(people.image_id[people.ignored.image_index[region]])
        pose = [x, y, 1.0, *[x + w, y + h, 1.0] * 16]
        results.append(KeypointResult(image_id=image_id, category_id=1, keypoints=pose, score=0.99))
    for result in results:
        result.pop("annotation_id", None)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    ours = _as_stats(evaluate_results(people, results))
    np.testing.assert_allclose(ours, _pycocotools(annotations, path, None), atol=1e-9, rtol=0)
    assert _is_one(ours[0]) == (noise == 0)


def test_a_detection_on_a_crowd_does_not_lower_ap(make_people: PeopleMaker) -> None:
    crowd = (2, 100.0, 100.0, 400.0, 300.0)
    people = make_people(ignored_boxes=[crowd])
    on_crowd = KeypointResult(
        image_id=30, category_id=7, keypoints=[200.0, 200.0, 1.0] * 5, score=5.0
    )
    results = [*_results(people), on_crowd]
    for result in results:
        result.pop("annotation_id", None)
    with_crowd = evaluate_results(people, results).AP
    without = evaluate_results(make_people(), results).AP
    assert _is_one(with_crowd)
    assert without is not None
    assert without < 0.8


def test_an_annotation_of_id_zero_can_be_found(make_people: PeopleMaker) -> None:
    people = make_people()
    people = replace(people, instance_id=np.array([0, 1, 2]))
    assert _is_one(evaluate_results(people, _results(people)).AP)


def test_the_sigmas_of_the_skeleton_count(make_people: PeopleMaker) -> None:
    strict, lax = make_people(sigmas=[0.01] * 5), make_people(sigmas=[1.0] * 5)
    results = _results(strict, noise=0.05)
    assert evaluate_results(strict, results).AP == 0
    assert _is_one(evaluate_results(lax, results).AP)


def test_people_without_sigmas_are_refused(make_people: PeopleMaker) -> None:
    people = make_people(sigmas=())
    with pytest.raises(ConfigError, match="give sigmas in the config"):
        evaluate_results(people, _results(people))


def test_results_that_are_not_finite_are_refused(make_people: PeopleMaker) -> None:
    people = make_people()
    results = _results(people)
    results[1]["keypoints"][3] = float("nan")
    with pytest.raises(PeopleError, match=r"results: entry 1: keypoints\[3\] is nan"):
        evaluate_results(people, results)


def test_evaluation_prints_nothing_and_leaves_the_results_as_they_were(
    make_people: PeopleMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    people = make_people()
    results = _results(people)
    before = json.dumps(results)
    evaluate_results(people, results)
    assert capsys.readouterr().out == ""
    assert json.dumps(results) == before


def test_ap_with_score_one_does_not_depend_on_order_or_score(make_people: PeopleMaker) -> None:
    people = make_people(tuple(np.repeat(np.arange(10), 2)), num_images=10)
    results = _results(people, noise=0.08)
    expected = evaluate_results(people, results_with_score_one(results))
    assert evaluate_results(people, results_with_score_one(results[::-1])) == expected
    assert evaluate_results(people, results) != expected


def test_a_comparison_has_own_score_score_one_and_localisation(make_people: PeopleMaker) -> None:
    people = make_people(tuple(np.repeat(np.arange(10), 2)), num_images=10)
    predictions = _predictions(people, noise=0.08)
    own = compare_figures(people, predictions, ScoreRule())
    one = compare_figures(people, predictions, ScoreRule(kind="one"))
    assert own.own_score != own.score_one
    assert own.score_one == one.score_one == one.own_score
    assert own.mean_oks == one.mean_oks == pytest.approx(own.localisation.oks.mean())
    assert 0.2 < own.mean_oks < 0.95


def test_results_with_annotation_ids_measure_as_their_predictions(make_people: PeopleMaker) -> None:
    people = make_people()
    predictions = _predictions(people, noise=0.05)
    rule = ScoreRule(threshold=None)
    row = compare_figures(people, predictions, rule)
    assert row.own_score == compare_results(people, _results(people, noise=0.05)).own_score


def test_the_report_is_json_with_null_where_nothing_is_defined(make_people: PeopleMaker) -> None:
    people = make_people((0,))
    row = compare_figures(people, _predictions(people), ScoreRule())
    report = EvaluationReport(
        row=row,
        keypoint_names=people.skeleton.keypoint_names,
        num_images=3,
        num_people=1,
        num_poses=1,
        score_rule=ScoreRule(),
        evaluated={"store": "abc"},
    )
    content = json.loads(report.to_json())
    assert _is_one(content["AP"])
    assert content["APL"] is None or content["APM"] is None
    assert content["keypoints"]["keypoint_0"] == {"oks": None, "pck": None}
    assert content["keypoints"]["keypoint_1"] == {"oks": 1.0, "pck": 1.0}
    assert content["score_rule"]["threshold"] is None
    assert content["evaluated"] == {"store": "abc"}
