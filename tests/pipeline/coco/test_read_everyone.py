"""Laws of reading the people of a store: boxes alone and detections beside labelled people."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.coco.people import DETECTION_IDS_END, People
from pipeline.coco.read_everyone import (
    Everyone,
    describe_people,
    read_everyone,
    recorded_settings,
)
from pipeline.coco.read_people import read_people
from pipeline.errors import PeopleError
from pipeline.settings import PeopleSettings, StoredPeopleSettings
from tests.support.coco_documents import Json, annotation, changed, document

NOBODY: Json = {"num_keypoints": 0, "keypoints": [0] * 9}


def detection(image_id: int = 1, score: float = 0.9, **fields: Any) -> Json:
    box = [1.0, 1.0, 5.0, 6.0]
    return {"image_id": image_id, "category_id": 1, "bbox": box, "score": score, **fields}


def everyone(
    folder: Path, content: Json, detections: list[Json] | None = None, **settings: Any
) -> Everyone:
    (folder / "people.json").write_text(json.dumps(content))
    if detections is not None:
        settings["detections"] = folder / "boxes.json"
        settings["detections"].write_text(json.dumps(detections))
    return read_everyone(folder / "people.json", None, StoredPeopleSettings(**settings))


def assert_same_people(found: People, expected: People) -> None:
    for name in ("instance_id", "image_index", "bbox_xywh", "area", "keypoints"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), strict=True)
    np.testing.assert_equal(vars(found.ignored), vars(expected.ignored))


def test_an_annotated_box_alone_is_a_person_and_a_crowd_is_not(tmp_path: Path) -> None:
    people, notes = everyone(tmp_path, document())
    assert people.instance_id.tolist() == [10, 11, 12, 30]
    assert people.has_labels.tolist() == [True, False, True, True]
    np.testing.assert_array_equal(people.keypoints[1], [[np.nan, np.nan, 0]] * 3)
    assert people.ignored.annotation_id.tolist() == [9]
    assert people.box_score is None
    assert notes == ()
    assert describe_people(people) == (
        "4 (3 labelled, 1 from annotated boxes alone, 0 from detections)"
    )


def test_of_labelled_people_alone_nothing_changes(tmp_path: Path) -> None:
    content = changed(lambda content: content["annotations"].pop(2))
    people = everyone(tmp_path, content).people
    assert_same_people(people, read_people(tmp_path / "people.json", None, PeopleSettings()))
    assert describe_people(people) == "3"


def test_only_labelled_reads_as_an_evaluation_does(tmp_path: Path) -> None:
    people = everyone(tmp_path, document(), only_labelled=True).people
    assert_same_people(people, read_people(tmp_path / "people.json", None, PeopleSettings()))


@pytest.mark.parametrize(
    "fields",
    [
        {"ignore": 1},
        {"bbox": [3.0, 3.0, 0.0, 5.0]},
        {"bbox": [41.0, 3.0, 5.0, 5.0]},
        {"area": 0},
    ],
)
def test_what_is_marked_or_has_no_pixel_stays_an_ignore_region(
    tmp_path: Path, fields: Json
) -> None:
    content = changed(lambda content: content["annotations"][2].update(fields))
    people, notes = everyone(tmp_path, content)
    assert people.instance_id.tolist() == [10, 12, 30]
    assert people.ignored.annotation_id.tolist() == [9, 11]
    assert notes == (
        "1 annotation marked ignore or without a pixel in the image, kept as ignore regions",
    )


@pytest.mark.parametrize("keypoints", [None, []])
def test_a_box_alone_needs_neither_keypoints_nor_area(
    tmp_path: Path, keypoints: list[float] | None
) -> None:
    def bare(content: Json) -> None:
        content["annotations"] = [{"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]
        if keypoints is not None:
            content["annotations"][0]["keypoints"] = keypoints

    people = everyone(tmp_path, changed(bare)).people
    assert people.area.tolist() == [12]
    assert not people.has_labels.any()


def test_an_area_that_a_labelled_person_lacks_is_still_refused(tmp_path: Path) -> None:
    content = changed(lambda content: content["annotations"][1].pop("area"))
    with pytest.raises(PeopleError, match="annotation 12: area is missing"):
        everyone(tmp_path, content)


def test_detected_people_stand_in_their_images_after_all_others_are_compared(
    tmp_path: Path,
) -> None:
    boxes = [detection(7, 0.6), detection(1, 0.9), detection(1, 0.7, bbox=[30.0, 20.0, 20.0, 20.0])]
    people, notes = everyone(tmp_path, document(), boxes)
    assert people.num_instances == 7
    assert people.image_index.tolist() == sorted(people.image_index.tolist())
    assert len(set(people.instance_id.tolist())) == 7
    detected = people.select(np.flatnonzero(people.is_detected))
    assert (detected.instance_id < DETECTION_IDS_END).all()
    assert not detected.has_labels.any()
    assert detected.box_score is not None
    scores = dict(zip(detected.box_score.tolist(), detected.bbox_xywh.tolist(), strict=True))
    assert scores == {
        0.6: [1.0, 1.0, 5.0, 6.0],
        0.9: [1.0, 1.0, 5.0, 6.0],
        0.7: [30.0, 20.0, 10.0, 10.0],  # clipped to the image of 40 x 30
    }
    assert sorted(detected.area.tolist()) == [30, 30, 100]
    assert people.box_score is not None
    assert (people.box_score[~people.is_detected] == 1).all()
    assert notes == ("detections: 3 of 3 taken",)


def test_an_id_follows_from_image_name_and_box_alone(tmp_path: Path) -> None:
    """Not from the score, the place in the file or the ids of the images."""

    def renumbered(content: Json) -> None:
        content["images"][1]["id"] = 3
        content["annotations"] = [annotation(30, image_id=7)]

    first = everyone(tmp_path, document(), [detection(7), detection(1)]).people
    again = everyone(tmp_path, changed(renumbered), [detection(3, 0.5), detection(7, 0.6)]).people
    ids = [people.instance_id[people.is_detected].tolist() for people in (first, again)]
    assert ids[0] == ids[1]
    moved = everyone(tmp_path, document(), [detection(1, bbox=[1.0, 1.0, 5.0, 7.0])]).people
    assert moved.instance_id[moved.is_detected][0] not in ids[0]


# Annotation 10 has the box [10, 5, 20, 10]; one that is shifted by s pixels has
# IoU (20 - s) / (20 + s): above 1/2 below s = 20/3.
@pytest.mark.parametrize(("shift", "is_taken"), [(6.5, False), (6.8, True)])
def test_a_detection_of_an_annotated_person_is_left_out(
    tmp_path: Path, shift: float, is_taken: bool
) -> None:
    content = changed(lambda content: content["annotations"].pop(4))  # the crowd on the same box
    people, notes = everyone(tmp_path, content, [detection(bbox=[10 + shift, 5.0, 20.0, 10.0])])
    assert people.is_detected.sum() == is_taken
    assert notes[0] == (
        "detections: 1 of 1 taken"
        if is_taken
        else "detections: 0 of 1 taken; left out: 1 that overlap an annotation by more than 0.5"
    )
    strict = everyone(
        tmp_path, content, [detection(bbox=[10 + shift, 5.0, 20.0, 10.0])], detection_overlap=0.1
    )
    assert not strict.people.is_detected.any()


@pytest.mark.parametrize(("width", "is_taken"), [(3.0, False), (9.0, True)])
def test_a_detection_mostly_on_a_crowd_is_left_out(
    tmp_path: Path, width: float, is_taken: bool
) -> None:
    """However small it is beside the crowd: what counts is the share that the crowd covers."""

    def only_a_crowd(content: Json) -> None:
        content["annotations"] = [annotation(9, iscrowd=1, bbox=[0, 0, 20, 30], **NOBODY)]

    box = [18.0, 1.0, width, 4.0]  # 2 of its columns lie on the crowd
    if is_taken:
        people = everyone(tmp_path, changed(only_a_crowd), [detection(bbox=box)]).people
        assert people.is_detected.tolist() == [True]
        return
    with pytest.raises(
        PeopleError, match=r"must hold people: .*; detections: 0 of 1 taken.*\(--detect"
    ):
        everyone(tmp_path, changed(only_a_crowd), [detection(bbox=box)])


def test_low_scores_repeated_boxes_and_other_categories_are_counted(tmp_path: Path) -> None:
    boxes = [
        detection(score=0.49),
        detection(score=0.5),
        detection(score=0.8),
        detection(category_id=2),
        detection(score=0.1, bbox=[400.0, 1.0, 2.0, 2.0]),  # not looked at
    ]
    people, notes = everyone(tmp_path, document(), boxes)
    assert people.box_score is not None
    assert people.box_score[people.is_detected].tolist() == [0.8]
    assert notes == (
        "detections: 1 of 5 taken; left out: 2 with a score below 0.5, 1 that repeat a box, "
        "1 of another category",
    )
    assert everyone(tmp_path, document(), boxes[:3], detection_threshold=0.9).people.box_score is (
        None
    )


def test_images_without_annotations_have_detected_people(tmp_path: Path) -> None:
    content = changed(lambda content: content.update(annotations=[]))
    people = everyone(tmp_path, content, [detection(7), detection(1)]).people
    assert people.image_index.tolist() == [0, 1]
    assert describe_people(people) == (
        "2 (0 labelled, 0 from annotated boxes alone, 2 from detections)"
    )


def test_a_detection_outside_its_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        PeopleError, match=r"boxes\.json: bbox \[40\.0, .*\]: lies outside its image of 40 x 30"
    ):
        everyone(tmp_path, document(), [detection(bbox=[40.0, 1.0, 5.0, 5.0])])


def test_images_of_detected_people_are_looked_at(tmp_path: Path, image_folder: Path) -> None:
    (tmp_path / "people.json").write_text(
        json.dumps(changed(lambda content: content.update(annotations=[])))
    )
    (tmp_path / "boxes.json").write_text(json.dumps([detection(7)]))
    (image_folder / "b" / "two.png").unlink()
    settings = StoredPeopleSettings(detections=tmp_path / "boxes.json")
    with pytest.raises(PeopleError, match=r"image 'b/two\.png' is not in the folder"):
        read_everyone(tmp_path / "people.json", image_folder, settings)


def test_detections_and_only_labelled_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only_labelled must be left out with detections"):
        StoredPeopleSettings(only_labelled=True, detections=tmp_path / "boxes.json")


def test_a_store_that_records_nothing_was_written_from_labelled_people(tmp_path: Path) -> None:
    assert recorded_settings({}, None).only_labelled
    assert recorded_settings({"people": {"area_fraction": 0.5}}, None).only_labelled
    recorded = {"people": StoredPeopleSettings().model_dump(mode="json")}
    assert not recorded_settings(recorded, None).only_labelled
    given = recorded_settings(recorded, tmp_path / "moved.json")
    assert given.detections == tmp_path / "moved.json"


def test_an_evaluation_sees_labelled_people_and_the_regions_of_the_file(tmp_path: Path) -> None:
    people = everyone(tmp_path, document(), [detection(7)]).people.as_evaluated()
    expected = read_people(tmp_path / "people.json", None, PeopleSettings())
    assert_same_people(people, expected)
