"""Every refusal of a student's training: it names the field, what it must be, what it is, and a way
out; and nothing is written before."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config import load_config
from pipeline.errors import ConfigError, ImageError, PeopleError, RunFolderError, TrainingError
from pipeline.runs.run_folder import RunFolder
from stages import preset_file
from stages.settings.training import TrainStudentConfig
from stages.train_student import train_student
from store_schemas.errors import IncompleteError, SchemaError, StoreError

SETTINGS = {
    "architecture": "distilpose-xs",
    "epochs": 1,
    "num_loader_workers": 0,
    "num_threads": 1,
    "device": "cpu",
    "optimisation": {"batch_size": 4, "warmup_steps": 0},
}


def configure(drawn: Any, **changes: object) -> TrainStudentConfig:
    return load_config(TrainStudentConfig, fields={**SETTINGS, "images": drawn.images, **changes})


def copy_images(drawn: Any, target: Path) -> Path:
    shutil.copytree(drawn.images, target)
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "give either a teacher store .--store. or --annotations"),
        ({"annotations": "a.json"}, "distillation needs --store; give it, or --no-distillation"),
        (
            {"store": "s", "loss": {"confidence": 0, "simulated_heatmap": 0}},
            "nothing is distilled; set one, or give --no-distillation",
        ),
        (
            {"annotations": "a", "distillation": False, "loss": {"regression": 0}},
            "no loss is left",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    drawn: Any, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(drawn, **changes)


def test_a_teacher_is_no_student(drawn: Any, store: Path, tmp_path: Path) -> None:
    config = configure(drawn, store=store, architecture="tokenpose-xs")
    with pytest.raises(
        ConfigError, match=r"architecture .* got tokenpose-xs, .*; choose one of: distilpose-l, "
    ):
        train_student(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_views_than_the_store_holds_are_refused(
    drawn: Any, store: Path, tmp_path: Path
) -> None:
    config = configure(drawn, store=store, data={"view_policy": "replay", "num_views": 3})
    with pytest.raises(ConfigError, match=r"num_views is 3, but .* holds 2 .*; use fewer"):
        train_student(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("source", ["store", "annotations"])
def test_a_batch_larger_than_the_people_is_refused(
    drawn: Any, store: Path, tmp_path: Path, source: str
) -> None:
    number = len(json.loads(drawn.annotations.read_bytes())["annotations"])
    given = {"store": store, "annotations": drawn.annotations}
    config = configure(
        drawn,
        **{source: given[source]},
        distillation=source == "store",
        optimisation={"batch_size": number + 1},
    )
    expected = (
        rf"people to train on, {number}, got {number + 1}; give --batch-size {number} or less"
    )
    with pytest.raises(ConfigError, match=expected):
        train_student(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_store_of_another_aspect_is_refused(
    drawn: Any, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    config = configure(
        drawn, store=make_store(input_size_hw=(256, 256)), data={"view_policy": "replay"}
    )
    expected = (
        r"aspect .* 128 x 96 .* holds crops of 256 x 256; choose another architecture, set "
        r"data\.view_policy to carry, or wr"
    )
    with pytest.raises(ConfigError, match=expected):
        train_student(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_incomplete_store_is_refused(
    drawn: Any, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    config = configure(drawn, store=make_store(is_complete=False))
    expected = r"must be complete, but has 1 of \d+ shards; .* cache-teacher with --resume"
    with pytest.raises(IncompleteError, match=expected):
        train_student(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_store_of_a_newer_schema_is_refused(
    drawn: Any, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    store = make_store()
    document = json.loads((store / "zarr.json").read_bytes())
    written = document["attributes"]["schema"]
    document["attributes"]["schema"] = "2"
    (store / "zarr.json").write_text(json.dumps(document))
    expected = rf"must have schema '{written}', got '2'; .* or write it again"
    with pytest.raises(SchemaError, match=expected):
        train_student(configure(drawn, store=store), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_altered_store_is_refused(
    drawn: Any, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    store = make_store()
    chunk = next((store / "views" / "image_to_crop").glob("c*"))
    data = bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(StoreError, match="image_to_crop"):
        train_student(configure(drawn, store=store), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_altered_heatmaps_stop_the_training(
    drawn: Any, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    store = make_store()
    shard = next((store / "teachers" / "truth" / "heatmaps").glob("c*"))
    data = bytearray(shard.read_bytes())
    data[: len(data) // 2] = bytes(len(data) // 2)
    shard.write_bytes(data)
    with pytest.raises(StoreError, match="shard"):
        train_student(configure(drawn, store=store), tmp_path / "run")


def test_people_whose_views_failed_are_left_out(
    drawn: Any, make_store: Callable[..., Path], store: Path, tmp_path: Path
) -> None:
    one = {"batch_size": 1, "warmup_steps": 0}
    steps = [
        train_student(configure(drawn, store=path, optimisation=one), tmp_path / name).steps
        for name, path in (("whole", store), ("failed", make_store(failed_row=1)))
    ]
    assert steps[1] == steps[0] - 1


def test_a_missing_image_is_named_before_the_first_step(
    drawn: Any, store: Path, tmp_path: Path
) -> None:
    images = copy_images(drawn, tmp_path / "images")
    (images / "000002.jpg").unlink()
    expected = r"the 6 images of .* lacks 1 of them, the first one '000002\.jpg'; give the fo"
    with pytest.raises(PeopleError, match=expected):
        train_student(configure(drawn, store=store, images=images), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_image_folder_that_is_not_there_is_named_before_the_first_step(
    drawn: Any, store: Path, tmp_path: Path
) -> None:
    config = configure(drawn, store=store, images=tmp_path / "nowhere")
    expected = r"images must be the folder of the 6 .* no folder .*nowhere; give the folder"
    with pytest.raises(PeopleError, match=expected):
        train_student(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_image_that_changed_since_the_store_was_written_is_named(
    drawn: Any, store: Path, tmp_path: Path
) -> None:
    images = copy_images(drawn, tmp_path / "images")
    with Image.open(images / "000002.jpg") as image:
        pixels = np.asarray(image)
    Image.fromarray(pixels // 2).save(images / "000002.jpg")
    expected = (
        r"000002\.jpg' has changed since the teacher store was written: expected sha256 "
        r"[0-9a-f]{12}, got [0-9a-f]{12}; give the original image, or write another store"
    )
    with pytest.raises(ImageError, match=expected):
        train_student(configure(drawn, store=store, images=images), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda names: ["beak", *names[1:]], "number 1 of them 'nose', got 'beak'"),
        (lambda names: [names[0], names[2], names[1], *names[3:]],
         "number 2 of them 'left_eye', got 'right_eye'"),
    ],
    ids=["other", "another order"],
)  # fmt: skip
def test_validation_people_with_other_keypoints_are_refused(
    drawn: Any, store: Path, tmp_path: Path, change: Callable[..., list[str]], difference: str
) -> None:
    document = json.loads(drawn.annotations.read_bytes())
    names = document["categories"][0]["keypoints"]
    document["categories"][0]["keypoints"] = change(names)
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document))
    config = configure(drawn, store=store, val_annotations=other)
    expected = rf"keypoint_names of .*other\.json must be .*, {difference}; validate on people"
    with pytest.raises(PeopleError, match=expected):
        train_student(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_validation_people_with_fewer_keypoints_are_refused(
    drawn: Any, store: Path, tmp_path: Path
) -> None:
    document = json.loads(drawn.annotations.read_bytes())
    category = document["categories"][0]
    category["keypoints"], category["skeleton"] = category["keypoints"][:5], []
    for annotation in document["annotations"]:
        annotation["keypoints"] = annotation["keypoints"][:15]
        visible = annotation["keypoints"][2::3]
        annotation["num_keypoints"] = sum(flag > 0 for flag in visible)
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document))
    config = configure(drawn, store=store, val_annotations=other)
    with pytest.raises(PeopleError, match=r"17 \(nose, .*, got 5 \(nose, .*; validate on people"):
        train_student(config, tmp_path / "run")


def test_a_part_without_any_fitting_tensor_is_refused(
    drawn: Any, store: Path, tmp_path: Path
) -> None:
    train_student(configure(drawn, store=store), tmp_path / "first")
    initial = {"weights": RunFolder(tmp_path / "first").last_weights, "parts": ["stem"]}
    config = configure(drawn, store=store, initial=initial)
    with pytest.raises(RunFolderError, match=r"no tensor of 'stem'.*has: backbone, encoder, head"):
        train_student(config, tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_training_and_saves_nothing(
    drawn: Any, store: Path, tmp_path: Path
) -> None:
    wild = {"batch_size": 4, "learning_rate": 1e30, "schedule": "constant", "warmup_steps": 0}
    config = configure(drawn, store=store, optimisation=wild, epochs=3)
    with pytest.raises(TrainingError, match=r"step \d+ is not finite: loss .*nothing was saved"):
        train_student(config, tmp_path / "run")


def test_a_folder_that_holds_a_run_needs_resume(drawn: Any, store: Path, tmp_path: Path) -> None:
    config = configure(drawn, store=store)
    train_student(config, tmp_path / "run")
    with pytest.raises(
        RunFolderError, match=r"already holds a run; .* or continue it with --resume"
    ):
        train_student(config, tmp_path / "run")


def test_a_run_that_never_began_cannot_be_resumed(drawn: Any, store: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"there is no run in .*leave --resume out"):
        train_student(configure(drawn, store=store), tmp_path / "run", resume=True)


def test_a_changed_setting_is_refused_by_name_on_resume(
    drawn: Any, store: Path, tmp_path: Path
) -> None:
    train_student(configure(drawn, store=store), tmp_path / "run")
    changed = configure(drawn, store=store, loss={"confidence": 0.5})
    with pytest.raises(RunFolderError, match=r"loss.confidence = 0.01, now it is 0.5; resume with"):
        train_student(changed, tmp_path / "run", resume=True)


def test_another_store_is_refused_on_resume(
    drawn: Any, store: Path, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    train_student(configure(drawn, store=store), tmp_path / "run")
    other = configure(drawn, store=make_store(failed_row=0), epochs=2)
    with pytest.raises(
        RunFolderError, match=r"with store_\w+ = \w+, now it is \w+; resume with the store"
    ):
        train_student(other, tmp_path / "run", resume=True)


def test_a_moved_store_is_accepted_on_resume(
    drawn: Any, store: Path, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    train_student(configure(drawn, store=store), tmp_path / "run")
    moved = configure(drawn, store=make_store(), epochs=2)
    assert train_student(moved, tmp_path / "run", resume=True).epochs == 2


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    known = "distilpose-s, distilpose-s-no-tokens, distilpose-xs"
    with pytest.raises(ConfigError, match=rf"no preset 'big'; .*{known}"):
        preset_file("big")
