"""``distil evaluate``: what is measured, what is written and shown, and what is refused."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from pipeline.coco.read_people import PeopleSettings, read_people
from pipeline.coco.skeletons import COCO_KEYPOINT_NAMES, COCO_SIGMAS, flip_indices_of_names
from pipeline.config import validate_config
from pipeline.errors import ConfigError, PeopleError, RunFolderError, TeacherError
from pipeline.frames.geometry import apply
from pipeline.frames.views import ViewRecipe, draw_views
from pipeline.models.pose_networks import build_network
from pipeline.teacher_store.folder import LocalFolder
from pipeline.teacher_store.lease import acquire_lease
from pipeline.teacher_store.manifest import digest_of_images
from pipeline.teacher_store.plan import ViewPlan
from pipeline.teacher_store.writer import TeacherStoreWriter
from pipeline.training.checkpoints import CheckpointInfo, save_weights
from stages.evaluate import EvaluateConfig, evaluate
from stages.evaluation_table import print_report
from store_schemas.errors import IncompleteError

SIZE_HW = (128, 96)
NAMES = COCO_KEYPOINT_NAMES


@dataclass(frozen=True)
class Sample:
    """Three images with two people each, on disk."""

    folder: Path

    @property
    def annotations(self) -> Path:
        return self.folder / "people.json"

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.annotations.read_text()))

    @property
    def truth(self) -> list[dict[str, Any]]:
        """The annotations as results, without annotation ids."""
        return [
            {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 0.9}
            for a in self.document["annotations"]
        ]

    def write(self, name: str, content: object) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(content))
        return path

    def config(self, **settings: Any) -> EvaluateConfig:
        return validate_config(EvaluateConfig, {"annotations": self.annotations, **settings})


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    random = np.random.default_rng(3)
    images, annotations = [], []
    for image in range(1, 4):
        pixels = random.integers(0, 256, (160, 240, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{image}.png")
        images.append({"id": image, "file_name": f"{image}.png", "width": 240, "height": 160})
        for person in range(2):
            corner = np.array([20 + 110 * person, 20])
            points = corner + random.uniform(0, 1, (17, 2)) * [80, 110]
            triples = np.column_stack([points, np.full(17, 2.0)])
            annotations.append(
                {
                    "id": 10 * image + person,
                    "image_id": image,
                    "category_id": 1,
                    "bbox": [*corner.tolist(), 80, 110],
                    "area": 5000.0,
                    "iscrowd": 0,
                    "keypoints": triples.ravel().tolist(),
                }
            )
    category = {"id": 1, "name": "person", "keypoints": list(NAMES), "skeleton": []}
    found = Sample(tmp_path)
    found.write(
        "people.json", {"images": images, "annotations": annotations, "categories": [category]}
    )
    return found


def save_network(path: Path, architecture: str = "distilpose-xs", **changes: Any) -> Path:
    """Save a small network with random weights."""
    names = changes.get("keypoint_names", NAMES)
    torch.manual_seed(0)
    network = build_network(architecture, len(names))
    is_teacher = architecture.startswith("tokenpose")
    facts: dict[str, Any] = {
        "kind": "teacher" if is_teacher else "student",
        "architecture": architecture,
        "input_size_hw": SIZE_HW,
        "padding": 1.25,
        "heatmap_size_hw": (64, 48) if is_teacher else None,
        "heatmap_frame": "half-pixel" if is_teacher else None,
        "keypoint_names": names,
        "edges": (),
        "flip_indices": flip_indices_of_names(names),
        "sigmas": COCO_SIGMAS,
        "upper_body": (),
        "lower_body": (),
        "score_rule": "learned",
        "scored_keypoints": (0, 5, 6),
        "store_fingerprint": "f" * 64,
        "seed": 0,
        "epoch": 4,
        "step": 100,
    }
    save_weights(path, network, CheckpointInfo(**{**facts, **changes}))
    return path


@pytest.fixture
def student(sample: Sample) -> Path:
    return save_network(sample.folder / "runs" / "a" / "checkpoints" / "best.safetensors")


def write_store(
    sample: Sample, *, failed: tuple[int, ...] = (), finish: bool = True, with_sigmas: bool = True
) -> Path:
    """Store the truth as if a teacher had seen it in every view."""
    people = read_people(sample.annotations, sample.folder, PeopleSettings())
    views = draw_views(people, ViewRecipe(padding=1.1), 0, 1, SIZE_HW)
    n, v, k = people.num_instances, 2, people.skeleton.num_keypoints
    outputs = np.empty((n, v, k, 4), np.float32)
    outputs[..., 0], outputs[..., 1] = 1 / 255, 0.7
    truth = people.keypoints[:, None, :, :2].astype(np.float64)
    outputs[..., 2:] = apply(views.image_to_crop, np.repeat(truth, v, axis=1))
    status = np.ones((n, v), np.uint8)
    status[list(failed), 0] = 2
    digests = np.zeros((len(people.image_id), 32), np.uint8)
    path = sample.folder / "teacher.zarr"
    folder = LocalFolder(path)
    lease = acquire_lease(folder)
    writer = TeacherStoreWriter.create(
        folder,
        lease.run_id,
        people,
        digests,
        ViewPlan(views.image_to_crop, views.is_mirrored, SIZE_HW, 0, {"padding": 1.1}),
        "teacher",
        {"teacher": {"sha256": "a" * 64, "flip_test": True, "flip_shift": 1, "decoding": "dark"}},
        {},
        {},
        (64, 48),
        0.01,
    )
    if finish:
        images = digest_of_images(digests, people.image_index)
        writer.write_shard(0, np.zeros((n, v, k, 64, 48), np.uint8), outputs, status, images)
        writer.finish()
    lease.release()
    return path


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
    seen: list[tuple[int, int]] = []
    result = evaluate(
        sample.config(run_folder=sample.folder / "runs/a", images=sample.folder, batch_size=4),
        lambda *counts: seen.append(counts),
    )
    assert result.written == (sample.folder / "runs/a/evaluation.json",)
    content = json.loads(result.written[0].read_text())
    figures = ["AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL"]
    assert list(content)[:10] == figures
    assert content["APL"] is None
    assert content["evaluated"]["weights"] == str(student)
    assert content["evaluated"]["store_fingerprint"] == "f" * 64
    assert content["evaluated"]["padding"] == 1.25
    assert seen == [(4, 6), (6, 6)]


def test_results_json_evaluates_to_the_same_figures(sample: Sample, student: Path) -> None:
    out = sample.folder / "out"
    first = evaluate(sample.config(weights=student, images=sample.folder, output=out))
    again = evaluate(sample.config(predictions=out / "results.json"))
    assert again.report.row.own_score == first.report.row.own_score
    assert again.report.row.mean_oks == first.report.row.mean_oks


@pytest.mark.parametrize(
    ("score_rule", "kind", "scored"),
    [("learned", "keypoint_mean", (0, 5, 6)), ("one", "one", None)],
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


def test_detections_without_a_box_of_the_category_are_refused(
    sample: Sample, student: Path
) -> None:
    other = {"image_id": 1, "category_id": 2, "bbox": [0, 0, 9, 9], "score": 1}
    boxes = sample.write("boxes.json", [other])
    with pytest.raises(PeopleError, match=r"holds no box of category 1, .*\(1 of others\)"):
        evaluate(sample.config(weights=student, images=sample.folder, detections=boxes))


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
        "2 of 6 people have no stored pose (2 image unreadable): they count as missed",
    )


def test_a_stored_person_that_the_annotations_lack_is_refused(sample: Sample) -> None:
    store = write_store(sample)
    document = sample.document
    document["annotations"][3]["id"] = 99
    other = sample.write("other.json", document)
    with pytest.raises(PeopleError, match=r"the store has the person 21 in image 2, .*other.json"):
        evaluate(sample.config(store=store, annotations=other))


def test_an_incomplete_store_is_refused(sample: Sample) -> None:
    store = write_store(sample, finish=False)
    with pytest.raises(IncompleteError, match="0 of 1 shards"):
        evaluate(sample.config(store=store, annotations=None))


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


def test_a_network_with_other_keypoints_is_refused_by_the_first_difference(sample: Sample) -> None:
    swapped = (*NAMES[:3], NAMES[4], NAMES[3], *NAMES[5:])
    for architecture, source in (("distilpose-xs", "weights"), ("tokenpose-xs", "teacher")):
        path = save_network(sample.folder / "w.safetensors", architecture, keypoint_names=swapped)
        with pytest.raises(
            PeopleError, match="has 'right_ear' as keypoint 3, the annotations have 'left_ear'"
        ):
            evaluate(sample.config(**{source: path}, images=sample.folder))


def test_a_network_with_fewer_keypoints_is_refused(sample: Sample) -> None:
    path = save_network(sample.folder / "w.safetensors", keypoint_names=NAMES[:13])
    with pytest.raises(PeopleError, match="has 13 keypoints, the annotations have 17; evaluate"):
        evaluate(sample.config(weights=path, images=sample.folder))


def test_a_store_with_other_keypoints_is_refused(sample: Sample) -> None:
    store = write_store(sample)
    document = sample.document
    document["categories"][0]["keypoints"][0] = "chin"
    with pytest.raises(PeopleError, match="has 'nose' as keypoint 0, the annotations have 'chin'"):
        evaluate(sample.config(store=store, annotations=sample.write("other.json", document)))


def test_other_inputs_that_cannot_be_evaluated_are_refused(sample: Sample, student: Path) -> None:
    images = sample.folder
    teacher = save_network(sample.folder / "t.safetensors", "tokenpose-xs")
    with pytest.raises(RunFolderError, match=r"holds a teacher .*; evaluate it with --teacher"):
        evaluate(sample.config(weights=teacher, images=images))
    with pytest.raises(TeacherError, match="holds a student; expected a teacher"):
        evaluate(sample.config(teacher=student, images=images))
    with pytest.raises(RunFolderError, match=r"has no checkpoints/best.safetensors; expected"):
        evaluate(sample.config(run_folder=sample.folder / "nothing", images=images))
    with pytest.raises(ConfigError, match=r"output .*people.json is a file; expected a folder"):
        evaluate(sample.config(weights=student, images=images, output=sample.annotations))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_refused(sample: Sample, student: Path) -> None:
    with pytest.raises(ConfigError, match="device is cuda, but torch finds no GPU here"):
        evaluate(sample.config(weights=student, images=sample.folder, device="cuda"))


def test_a_skeleton_without_sigmas_is_refused_before_any_pose_is_made(sample: Sample) -> None:
    document = sample.document
    document["categories"][0]["keypoints"][0] = "chin"
    other = sample.write("other.json", document)
    results = sample.write("results.json", sample.truth)
    with pytest.raises(ConfigError, match="OKS needs one sigma per keypoint"):
        evaluate(sample.config(predictions=results, annotations=other))
    sigmas = {"skeleton": {"sigmas": COCO_SIGMAS}}
    given = evaluate(sample.config(predictions=results, annotations=other, people=sigmas))
    row = given.report.row
    assert row.score_one.AP == row.own_score.AP == pytest.approx(1.0)


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
    assert "mean of the keypoint scores above 0.2" in shown
    assert "1 of 6 people have no stored pose" in shown
