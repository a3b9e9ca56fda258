"""What ``distil evaluate`` refuses, and in which words: inputs that do not fit each other."""

from pathlib import Path

import pytest
import torch

from pipeline.coco.skeletons import COCO_SIGMAS
from pipeline.errors import ConfigError, PeopleError, RunFolderError, TeacherError
from stages.evaluate import evaluate
from store_schemas.errors import IncompleteError
from tests.support.evaluation_sample import NAMES, Sample, save_network, write_store


def test_detections_without_a_box_of_the_category_are_refused(
    sample: Sample, student: Path
) -> None:
    other = {"image_id": 1, "category_id": 2, "bbox": [0, 0, 9, 9], "score": 1}
    boxes = sample.write("boxes.json", [other])
    with pytest.raises(PeopleError, match=r"holds no box of category 1, .*\(1 of others\)"):
        evaluate(sample.config(weights=student, images=sample.folder, detections=boxes))


def test_a_stored_person_that_the_annotations_lack_is_refused(sample: Sample) -> None:
    store = write_store(sample)
    document = sample.document
    document["annotations"][3]["id"] = 99
    other = sample.write("other.json", document)
    with pytest.raises(PeopleError, match=r"the store has the person 21 in image 2, .*other.json"):
        evaluate(sample.config(store=store, annotations=other))


def test_an_incomplete_store_is_refused(sample: Sample) -> None:
    store = write_store(sample, finish=False)
    with pytest.raises(IncompleteError, match="0 of 1 shard;"):
        evaluate(sample.config(store=store, annotations=None))


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
    with pytest.raises(ConfigError, match="device is cuda, but torch finds no CUDA device"):
        evaluate(sample.config(weights=student, images=sample.folder, device="cuda"))


def test_sigmas_of_another_skeleton_are_refused(sample: Sample) -> None:
    document = sample.document
    document["categories"][0]["keypoints"][0] = "chin"
    other = sample.write("other.json", document)
    results = sample.write("results.json", sample.truth)
    too_few = {"skeleton": {"sigmas": COCO_SIGMAS[1:]}}
    with pytest.raises(ConfigError, match="sigmas holds 16 numbers, but the annotations have 17"):
        evaluate(sample.config(predictions=results, annotations=other, people=too_few))
    sigmas = {"skeleton": {"sigmas": COCO_SIGMAS}}
    given = evaluate(sample.config(predictions=results, annotations=other, people=sigmas))
    row = given.report.row
    assert row.score_one.AP == row.own_score.AP == pytest.approx(1.0)
