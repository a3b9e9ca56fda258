"""``distil report``: one page that holds all that it shows, with the figures of the evaluation."""

import base64
import hashlib
import html
import json
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from pipeline.coco.people import People
from pipeline.coco.read_people import read_people
from pipeline.errors import ConfigError, DistilError, RunFolderError
from pipeline.evaluation.kept_evaluations import Evaluator
from pipeline.evaluation.localisation import Localisation, measure_localisation
from pipeline.frames.geometry import apply, invert
from pipeline.prediction.estimators import TeacherEstimator, predict_people
from pipeline.prediction.networks import open_student
from pipeline.progress import NoProgress
from pipeline.report import teacher as report_teacher
from pipeline.report.teacher import teacher_poses
from pipeline.runs.checkpoints import load_network, save_weights
from pipeline.runs.run_folder import RunFolder
from pipeline.settings import PeopleSettings, TeacherSettings
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teachers.opening import open_teacher
from stages import report as report_stage
from stages.demo import TEACHER
from stages.evaluate import evaluate
from stages.report import report
from stages.settings.evaluation import evaluation_of
from stages.settings.report import ReportConfig
from stages.settings.training import TrainStudentConfig
from tests.support.drawn_people import DrawnPeople
from tests.support.evaluation_sample import draw_sample, linear_of, save_network
from tests.support.html_pages import PageReader, dump, run_browser

NAMES = ("<first> & best", "second")
COMMAND = ["/bin/distil", "report", "a file"]
_PHONE, _DESKTOP = 390, 1280


@dataclass
class Report:
    """A page that was written once for all tests."""

    path: Path
    runs: list[Path]
    people: People
    measured: list[Localisation]
    content: str = field(init=False)
    page: PageReader = field(init=False)

    def __post_init__(self) -> None:
        self.content = self.path.read_text()
        self.page = PageReader()
        self.page.feed(self.content)

    def row(self, name: str) -> list[str]:
        """Return the cells of the first row that begins with a name."""
        return next(row for row in self.page.rows if row[0] == name)


def make_run(root: Path, drawn: DrawnPeople, seed: int, **settings: Any) -> Path:
    """A run whose student has random weights, with two epochs and a validation."""
    config = TrainStudentConfig.model_validate(
        {"architecture": "distilpose-xs", "distillation": False, "annotations": drawn.annotations}
        | {"images": drawn.images, "val_annotations": drawn.annotations, "seed": seed, **settings}
    )
    run = RunFolder(root)
    run.begin(config, {"command": ["distil", "train-student", "--seed", str(seed)]}, resume=False)
    network, info = load_network(save_network(root / "random.safetensors"))
    torch.manual_seed(seed)
    with torch.no_grad():
        # Points that differ from person to person.
        linear_of(network).weight.normal_(0, 0.15)
    rule = "one" if seed == 2 else "learned"
    save_weights(run.best_weights, network, info.model_copy(update={"score_rule": rule}))
    for number in (1, 2):
        loss = seed / number
        run.append_metrics(
            {"event": "epoch", "epoch": number, "step": number, "person_views": 600 * number}
            | {"learning_rate": 0.001, "loss": loss, "regression": loss / 2}
        )
    run.append_metrics(
        {"event": "validation", "epoch": 2, "step": 2, "AP": 0.125}
        | {"mean_oks": 0.3, "mean_pose_oks": 0.2}
    )
    return root


def spread_scores(run: Path, people: People, images: Path) -> None:
    """Stretch the scores of a random network, which hardly differ, to 0.2 .. 0.8."""
    weights = RunFolder(run).best_weights
    network, info = load_network(weights)
    student = open_student(weights, flip_test=True, threshold=None, device="cpu")
    scores = predict_people(student.estimator, people, images).keypoint_scores[:, [0, 5, 6]]
    low, high = scores.mean(axis=1).min(), scores.mean(axis=1).max()
    factor = 0.6 / (high - low)
    with torch.no_grad():
        linear = linear_of(network)
        bias = float(linear.bias[2])
        linear.weight[2] *= factor
        linear.bias[2] = factor * (bias - low) + 0.2
    save_weights(weights, network, info)


@pytest.fixture(scope="module")
def written(drawn: DrawnPeople, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("report")
    runs = [make_run(folder / name, drawn, seed) for seed, name in enumerate(NAMES, start=1)]
    config = ReportConfig(
        run_folders=tuple(runs), output=folder / "out.html", store=str(store), num_people=2
    )
    people = read_people(drawn.annotations, drawn.images, PeopleSettings())
    spread_scores(runs[0], people, drawn.images)
    measured = []
    for run in runs:
        weights = RunFolder(run).best_weights
        student = open_student(weights, flip_test=True, threshold=None, device="cpu")
        poses = predict_people(student.estimator, people, drawn.images)
        measured.append(measure_localisation(people, poses))
    assert report(config, NoProgress(), COMMAND) == folder / "out.html"
    return Report(folder / "out.html", runs, people, measured)


def test_the_page_is_whole_and_loads_nothing(written: Report) -> None:
    assert written.page.open == []
    tags = {tag for tag, _, _ in written.page.attributes} | set(
        re.findall(r"<(\w+)", written.content)
    )
    assert not tags & {"script", "link", "iframe", "object", "base", "form", "video"}
    for tag, name, value in written.page.attributes:
        if name in ("src", "href", "srcset", "poster", "data", "action"):
            assert value.startswith("#" if tag == "a" else "data:image/jpeg;base64,")
    assert "url(" not in written.content
    assert "@import" not in written.content
    anchors = {value[1:] for _, name, value in written.page.attributes if name == "href"}
    places = {value for _, name, value in written.page.attributes if name == "id"}
    assert anchors == places == {
        *("figures", "curves", "keypoints", "scores", "people", "store", "settings", "made")
    }  # fmt: skip


def test_names_from_outside_are_text_and_no_markup(written: Report) -> None:
    assert "<first>" not in written.content
    assert "&lt;first&gt; &amp; best" in written.content
    assert NAMES[0] in written.page.text


def test_the_figures_are_those_of_evaluate(
    written: Report, drawn: DrawnPeople, tmp_path: Path
) -> None:
    titles = [title.replace("\n", "") for title in written.page.rows[0]]
    assert titles[:4] == ["run", "AP,own score", "AP,score 1", "mean OKS"]
    for run, name in zip(written.runs, NAMES, strict=True):
        config = evaluation_of(
            {"run_folder": run, "annotations": drawn.annotations, "images": drawn.images}
            | {"output": tmp_path}
        )
        expected = evaluate(config).report.row
        cells = dict(zip(titles, written.row(name), strict=True))
        assert cells["AP,own score"].split()[0] == f"{expected.own_score.AP:.3f}"
        assert cells["AP,score 1"] == f"{expected.score_one.AP:.3f}"
        assert cells["mean OKS"].split()[0] == f"{expected.mean_oks:.3f}"
        assert cells["AR"] == f"{expected.own_score.AR:.3f}"
        assert cells["PCK@0.2"] == f"{expected.mean_pck:.3f}"
        assert cells["person-views"] == "1,200"
    first, second = written.measured
    difference = f"{second.mean_oks - first.mean_oks:+.4f}"
    assert written.row(NAMES[1])[4].startswith(difference)
    assert f"Mean OKS, second minus <first> & best: {difference} (95 %" in written.page.text


def test_every_keypoint_has_its_oks_and_pck_in_every_run(written: Report) -> None:
    one, other = written.measured
    for index, name in enumerate(written.people.skeleton.keypoint_names):
        values = (one.keypoint_oks, other.keypoint_oks, one.pck, other.pck)
        expected = [f"{values_of[index]:.3f}" for values_of in values]
        labelled = int(written.people.is_labelled[:, index].sum())
        assert written.row(name.replace("_", " "))[1:] == [*expected, str(labelled)]


def test_scores_are_compared_with_oks_where_they_were_trained(
    written: Report, drawn: DrawnPeople
) -> None:
    weights = RunFolder(written.runs[0]).best_weights
    student = open_student(weights, flip_test=True, threshold=None, device="cpu")
    poses = predict_people(student.estimator, written.people, drawn.images)
    scores = poses.keypoint_scores[:, [0, 5, 6]].mean(axis=1)
    assert scores.min() >= 0
    assert len({int(10 * score) for score in scores}) > 1, "one bin shows little"
    oks, error = written.measured[0].oks, 0.0
    for low in np.arange(10) / 10:
        inside = (scores >= low) & (scores < low + 0.1)
        if inside.any():
            error += inside.mean() * abs(scores[inside].mean() - oks[inside].mean())
    assert f"{NAMES[0]}: ECE {error:.3f}" in written.page.text
    assert "second: no keypoint's score was trained" in written.page.text
    assert "second: ECE" not in written.page.text


def test_the_worst_people_are_shown_with_truth_students_and_teacher(written: Report) -> None:
    pictures = [value for _, name, value in written.page.attributes if name == "src"]
    assert len(pictures) == 3 * 2 * 4  # groups, people, tiles
    for picture in pictures[:4]:
        content = base64.b64decode(picture.partition(",")[2])
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        assert decoded.shape == (320, 240, 3)
    assert len(set(pictures[:4])) == 4
    shown = [int(text) for text in re.findall(r"annotation (\d+)</figcaption>", written.content)]
    worst = np.argsort(written.measured[0].oks)[:2]
    assert shown[:2] == written.people.instance_id[worst].tolist()
    tiles = re.findall(
        r"<b>([^<]+)</b>(?:OKS (\d\.\d\d))?", written.content.split('id="people"')[1]
    )
    oks = [found.oks[worst[0]] for found in written.measured]
    assert [(html.unescape(label), oks) for label, oks in tiles[:4]] == [
        ("truth", ""),
        (NAMES[0], f"{oks[0]:.2f}"),
        (NAMES[1], f"{oks[1]:.2f}"),
        ("teacher", "0.00"),  # the stored keypoints of this store all lie in a corner
    ]


def test_curves_settings_store_and_provenance_are_told(written: Report) -> None:
    text = written.page.text
    for title in ("mean OKS over person-views", "loss over person-views", "regression over"):
        assert any(value.startswith(title) for _, name, value in written.page.attributes
                   if name == "aria-label")  # fmt: skip
    assert "simulated heatmap" not in text.split("Keypoints")[0]
    differing = text[text.index("Settings that differ among the runs (1)") :]
    assert differing.index("seed") < differing.index("Settings that differ from the defaults")
    assert written.row("distillation") == ["distillation", "false", "true"]
    assert written.row("architecture") == ["architecture", "distilpose-xs", "distilpose-s"]
    for run in written.runs:
        assert hashlib.sha256(RunFolder(run).best_weights.read_bytes()).hexdigest() in text
    assert "distil train-student --seed 1" in text
    assert "distil report 'a file'" in text
    assert TeacherStore.open(written_store(written)).fingerprint in text


def written_store(written: Report) -> str:
    return written.page.text.split("Teacher store\nstore")[1].split("schema")[0].strip()


def test_a_network_is_measured_once_and_another_one_again(
    written: Report, drawn: DrawnPeople, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a network predicts again")

    monkeypatch.setattr(Evaluator, "_predict_and_measure", refuse)
    config = ReportConfig(run_folders=tuple(written.runs), output=tmp_path / "again.html")
    report(config, NoProgress(), COMMAND)
    again = PageReader()
    again.feed((tmp_path / "again.html").read_text())
    assert again.rows[1] == written.page.rows[1]
    assert "Teacher store" not in again.text
    copy = tmp_path / NAMES[1]
    shutil.copytree(written.runs[1], copy)
    shutil.copy(RunFolder(written.runs[0]).best_weights, RunFolder(copy).best_weights)
    config = ReportConfig(
        run_folders=(copy,), output=tmp_path / "a.html", evaluations=tmp_path / "kept"
    )
    with pytest.raises(AssertionError, match="predicts again"):
        report(config, NoProgress(), COMMAND)


def test_a_run_that_was_not_validated_is_measured_on_given_people(
    drawn: DrawnPeople, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", drawn, 1, val_annotations=None)
    config = ReportConfig(run_folders=(run,), output=tmp_path / "a.html")
    with pytest.raises(ConfigError, match="names no people to draw; give --annotations and"):
        report(config, NoProgress(), COMMAND)
    given = config.model_copy(update={"annotations": drawn.annotations, "images": drawn.images})
    lines = [line for line in RunFolder(run).read_metrics() if line["event"] == "epoch"]
    RunFolder(run).metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report(given, NoProgress(), COMMAND)
    text = (tmp_path / "a.html").read_text()
    assert "The run was not validated while training" in text
    assert "minus the first" not in text


def test_runs_validated_on_different_people_are_refused(
    drawn: DrawnPeople, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_run(tmp_path / "one", drawn, 1)
    same = tmp_path / "same.json"
    shutil.copy(drawn.annotations, same)
    other = make_run(tmp_path / "other", drawn, 1, val_annotations=same)
    config = ReportConfig(run_folders=(one, other), output=tmp_path / "a.html")

    def stop(*_: object) -> None:
        raise InterruptedError("the people are accepted")

    monkeypatch.setattr(report_stage, "_evaluate", stop)
    with pytest.raises(InterruptedError, match="the people are accepted"):
        report(config, NoProgress(), COMMAND)
    document = json.loads(same.read_text())
    document["annotations"].pop()
    same.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"other was not validated on the people of .*one \("):
        report(config, NoProgress(), COMMAND)


def test_a_teachers_run_is_refused(drawn: DrawnPeople, tmp_path: Path) -> None:
    save_network(RunFolder(tmp_path / "t").best_weights, "tokenpose-xs")
    config = ReportConfig(run_folders=(tmp_path / "t",), output=tmp_path / "a.html")
    with pytest.raises(RunFolderError, match=r"a teacher \(tokenpose-xs\); a report is about"):
        report(config, NoProgress(), COMMAND)


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"output": "a.png"}, "must be a file name that ends in .html"),
    ({"annotations": "a.json"}, "give --annotations and --images together"),
    ({"images": "a"}, "give --annotations and --images together"),
    ({"teacher_name": "b"}, "--teacher-name has no effect without --store"),
    ({"run_folders": ("r", "x/../r")}, "is given twice"),
    ({"run_folders": ()}, "at least 1 item"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSALS)
def test_settings_that_contradict_each_other_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    from pipeline.config import validate_config

    with pytest.raises(DistilError, match=message):
        validate_config(ReportConfig, {"run_folders": ("r",), "output": "a.html", **settings})


def test_the_teacher_is_the_stores_own_word_or_predicts_or_is_left_out(
    drawn: DrawnPeople, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = TeacherStore.open(str(store))
    people = read_people(drawn.annotations, drawn.images, PeopleSettings())
    rows = np.array([4, 1])
    found = teacher_poses(opened, people, drawn.images, rows)
    assert found is not None
    stored = opened.read_keypoints(rows, np.zeros(2, int))
    np.testing.assert_array_equal(
        found.keypoints, apply(invert(stored.image_to_crop), stored.keypoints)
    )
    sample = draw_sample(tmp_path)
    others = read_people(sample.annotations, tmp_path, PeopleSettings())
    assert teacher_poses(opened, others, tmp_path, rows) is None
    teacher = open_teacher(TEACHER, TeacherSettings())
    monkeypatch.setattr(report_teacher, "source_path", lambda *_: TEACHER)
    monkeypatch.setattr(report_teacher, "open_stored_teacher", lambda *_: teacher)
    predicted = teacher_poses(opened, others, tmp_path, rows)
    assert predicted is not None
    estimator = TeacherEstimator(teacher, others.skeleton.flip_indices)
    padding = opened.views.recipe["padding"]
    expected = predict_people(estimator, others, tmp_path, padding=padding)
    np.testing.assert_allclose(predicted.keypoints, expected.keypoints[rows], atol=1e-3)


def test_people_without_sigmas_have_neither_ap_nor_oks(drawn: DrawnPeople, tmp_path: Path) -> None:
    people = read_people(drawn.annotations, drawn.images, PeopleSettings())
    bare = replace(people, skeleton=replace(people.skeleton, sigmas=()))
    with pytest.raises(ConfigError, match=r"has no sigmas; give them as people\.skeleton"):
        Evaluator(bare, drawn.annotations, drawn.images, tmp_path, threshold=None)


@pytest.mark.slow
@pytest.mark.parametrize("width", [_PHONE, _DESKTOP])
def test_a_browser_draws_the_page_without_scrolling_sideways(written: Report, width: int) -> None:
    found = dump(written.path, width)
    assert found["width"] == width
    assert found["scroll"] <= width, "only tables scroll sideways, each in its own box"
    assert found["outside"] == 0
    assert (found["images"], found["broken"], found["tall"]) == (24, 0, 0)
    assert found["loaded"] == 0, "the page loads something"


@pytest.mark.slow
def test_a_browser_draws_curves_and_pictures_in_their_colours(
    written: Report, tmp_path: Path
) -> None:
    picture = tmp_path / "page.png"
    run_browser(f"--screenshot={picture}", f"--window-size={_DESKTOP},6000", written.path.as_uri())
    drawn = cv2.imread(str(picture))
    assert drawn is not None
    assert drawn.shape == (6000, _DESKTOP, 3)
    for red, green, blue in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):  # lines of the two runs
        assert (drawn == (blue, green, red)).all(axis=-1).sum() > 400
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 5000
