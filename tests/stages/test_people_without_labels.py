"""People without labels in a store: cached, resumed, joined, verified, repaired, evaluated."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, PeopleError
from pipeline.runs.run_folder import provenance
from pipeline.teacher_store.reader import TeacherStore
from stages import cache_teacher as cache_teacher_stage
from stages.cache_teacher import cache_teacher
from stages.evaluate import evaluate
from stages.settings.evaluation import (
    StoreExportConfig,
    StoreRepairConfig,
    StoreVerifyConfig,
    evaluation_of,
)
from stages.store_export import store_export
from stages.store_repair import store_repair
from stages.store_verify import store_verify
from store_schemas.errors import IdentityError


@pytest.fixture
def mixed(inputs: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Drawn people of whom the first has a box alone, and two detected ones."""
    monkeypatch.setattr(cache_teacher_stage, "provenance", provenance)

    def unlabel(document: dict[str, Any]) -> None:
        first = min(document["annotations"], key=lambda each: (each["image_id"], each["id"]))
        first.update(num_keypoints=0, keypoints=[0] * 51)
        images = sorted(image["id"] for image in document["images"])
        boxes = [
            {"image_id": image, "category_id": 1, "bbox": [0, 0, 12, 20], "score": 0.75}
            for image in images[:2]
        ]
        (inputs.folder / "boxes.json").write_text(json.dumps(boxes))

    inputs.edit(unlabel)
    return inputs


def config_of(mixed: Any, **changes: Any) -> Any:
    return mixed.config(people__detections=mixed.folder / "boxes.json", **changes)


def labelled_alone(mixed: Any) -> Path:
    """Write the store of the labelled people of the same file."""
    store: Path = mixed.folder / "labelled.zarr"
    cache_teacher(mixed.config(people__only_labelled=True, store=str(store)))
    return store


def test_everybody_is_cached_with_whole_views_and_no_label(mixed: Any) -> None:
    said: list[str] = []
    result = cache_teacher(config_of(mixed), say=said.append)
    people = TeacherStore.open(mixed.store).people
    assert result.num_people == people.num_instances
    assert people.has_labels.sum() == people.num_instances - 3
    assert people.is_detected.sum() == 2
    assert said[0].startswith(
        f"people: {people.num_instances} ({people.num_instances - 3} labelled, 1 from annotated "
        "boxes alone, 2 from detections) with 17 keypoints"
    )
    assert said[1] == "detections: 2 of 2 taken"


def test_labelled_people_have_the_same_views_and_outputs_whoever_is_beside_them(
    mixed: Any,
) -> None:
    cache_teacher(config_of(mixed, profile="lossless-float16"))
    store = mixed.folder / "labelled.zarr"
    cache_teacher(
        mixed.config(people__only_labelled=True, store=str(store), profile="lossless-float16")
    )
    both, alone = TeacherStore.open(mixed.store), TeacherStore.open(store)
    rows = np.flatnonzero(both.people.has_labels)
    assert both.people.instance_id[rows].tolist() == alone.people.instance_id.tolist()
    for view in range(3):
        found, expected = (
            opened.read(some, np.full(len(some), view))
            for opened, some in ((both, rows), (alone, np.arange(len(rows))))
        )
        np.testing.assert_array_equal(found.image_to_crop, expected.image_to_crop)
        np.testing.assert_array_equal(found.heatmaps, expected.heatmaps)
        np.testing.assert_array_equal(found.keypoints, expected.keypoints)


def test_an_evaluation_of_the_store_is_that_of_its_labelled_people(mixed: Any) -> None:
    cache_teacher(config_of(mixed, profile="lossless-float16"))
    store = mixed.folder / "labelled.zarr"
    cache_teacher(
        mixed.config(people__only_labelled=True, store=str(store), profile="lossless-float16")
    )
    for truth in ({}, {"annotations": mixed.annotations}):
        outputs = mixed.folder / "found", mixed.folder / "expected"
        found, expected = (
            evaluate(evaluation_of({"store": str(path), "output": output, **truth}))
            for path, output in zip((mixed.store, store), outputs, strict=True)
        )
        poses, expected_poses = ((output / "results.json").read_text() for output in outputs)
        assert poses == expected_poses
        assert found.report.row.own_score == expected.report.row.own_score
        assert found.report.row.mean_oks == expected.report.row.mean_oks
        skipped = "not evaluated: 3 people of the store without labels"
        assert found.notes == (*expected.notes, skipped)


def test_a_store_without_any_label_cannot_be_evaluated(mixed: Any) -> None:
    mixed.edit(lambda document: document.update(annotations=[]))
    cache_teacher(config_of(mixed))
    with pytest.raises(PeopleError, match="nobody to compare with: none of the store's 2 people"):
        evaluate(evaluation_of({"store": str(mixed.store)}))


def test_exported_poses_of_detected_people_can_be_read_again(mixed: Any) -> None:
    cache_teacher(config_of(mixed))
    output = mixed.folder / "poses.json"
    store_export(StoreExportConfig(store=str(mixed.store), output=output))
    report = evaluate(
        evaluation_of({"predictions": output, "annotations": mixed.annotations})
    ).report
    assert report.num_poses == TeacherStore.open(mixed.store).people.num_instances


def test_resuming_needs_the_same_people(mixed: Any) -> None:
    def change(field: str, value: object) -> None:
        boxes = json.loads((mixed.folder / "boxes.json").read_text())
        boxes[0][field] = value
        (mixed.folder / "boxes.json").write_text(json.dumps(boxes))

    cache_teacher(config_of(mixed))
    cache_teacher(config_of(mixed), resume=True)
    change("score", 0.8)  # no part of the people
    cache_teacher(config_of(mixed), resume=True)
    with pytest.raises(IdentityError, match=r"people\.instance_id.* now there is none"):
        cache_teacher(mixed.config(), resume=True)
    change("bbox", [0, 0, 12, 21])
    with pytest.raises(IdentityError, match=r"people\.instance_id.* now there is none"):
        cache_teacher(config_of(mixed), resume=True)


def test_a_store_of_labelled_people_names_the_option_that_continues_it(mixed: Any) -> None:
    store = labelled_alone(mixed)
    with pytest.raises(
        IdentityError, match=r"instance_id.* now there is one.*give --only-labelled if the store"
    ):
        cache_teacher(mixed.config(store=str(store)), resume=True)
    cache_teacher(mixed.config(store=str(store), people__only_labelled=True), resume=True)


def test_a_second_teacher_joins(mixed: Any) -> None:
    cache_teacher(config_of(mixed))
    result = cache_teacher(config_of(mixed, teacher_name="b"))
    assert result.num_teachers == 2


def test_verification_reads_the_recorded_detections(mixed: Any) -> None:
    cache_teacher(config_of(mixed))
    config = StoreVerifyConfig(store=str(mixed.store), sample=4)
    result = store_verify(config)
    assert result.failed is None
    assert any(line.endswith("boxes.json") for line in result.checked)
    moved = mixed.folder / "moved.json"
    (mixed.folder / "boxes.json").rename(moved)
    result = store_verify(config)
    assert "people: detections are not where they were; use --detections" in result.unchecked
    result = store_verify(config.model_copy(update={"detections": moved}))
    assert result.failed is None
    assert "moved.json" in " ".join(result.checked)
    boxes = json.loads(moved.read_text())[:1]
    moved.write_text(json.dumps(boxes))
    result = store_verify(config.model_copy(update={"detections": moved}))
    assert result.failed is not None
    assert "people.instance_id" in result.problems["people"][0]


def test_a_damaged_shard_is_repaired_to_the_same_bytes(mixed: Any) -> None:
    cache_teacher(config_of(mixed))
    before = mixed.digests()
    (mixed.store / "teachers/teacher/heatmaps/c.0.0.0.0.0").write_bytes(b"torn")
    repaired = store_repair(
        StoreRepairConfig(store=str(mixed.store), annotations=mixed.annotations)
    )
    assert repaired.repaired_shards == (0,)
    after = mixed.digests()
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"zarr.json", "writer.json"}


def test_the_command_line_refuses_both_options(mixed: Any) -> None:
    with pytest.raises(ConfigError, match="only_labelled must be left out with detections"):
        config_of(mixed, people__only_labelled=True)
