"""``show`` of a run: a student beside its teacher, its worst people, and attention."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.coco.image_files import decode_image, resolve_image
from pipeline.coco.people import People
from pipeline.coco.read_people import read_people
from pipeline.coco.skeletons import flip_indices_of_names
from pipeline.errors import ConfigError, DistilError
from pipeline.evaluation.localisation import measure_localisation
from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import apply, box_to_crop, crop_to_heatmap
from pipeline.frames.heatmaps import encode_keypoints
from pipeline.models.pose_networks import PoseNetwork
from pipeline.pictures.attention import attend, encoder_of, shown_layers
from pipeline.pictures.beside_teacher import DrawnPose, pose_oks, tiles_beside_teacher
from pipeline.pictures.poses import LEFT_COLOUR, RIGHT_COLOUR
from pipeline.prediction.estimators import predict_people
from pipeline.prediction.networks import open_student
from pipeline.progress import NoProgress
from pipeline.runs.checkpoints import load_network, save_weights
from pipeline.runs.run_folder import RunFolder
from pipeline.settings import PeopleSettings
from stages import show_attention as attention_stage
from stages import show_student as student_stage
from stages.settings.pictures import ShowAttentionConfig, ShowStudentConfig, picture_of
from stages.settings.training import TrainStudentConfig, TrainTeacherConfig
from stages.show_attention import show_attention
from stages.show_student import show_student
from tests.support.drawn_people import DrawnPeople
from tests.support.evaluation_sample import save_network

SIGMA = 2.0


class Sheet:
    """Records what a sheet is made of."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.captions: list[str] = []
        self.legend = ""
        self.heading = ""

    def __call__(
        self,
        rows: Any,
        titles: list[str],
        captions: list[str],
        legend: Any,
        heading: str,
        num_blocks: int = 1,
    ) -> NDArray[np.uint8]:
        assert {len(row) for row in rows} == {len(titles)}
        self.titles, self.captions, self.heading = titles, captions, heading
        self.legend = " ".join(text for text, _ in legend)
        return np.zeros((4, 4, 3), np.uint8)


@pytest.fixture
def sheet(monkeypatch: pytest.MonkeyPatch) -> Sheet:
    found = Sheet()
    monkeypatch.setattr(student_stage, "contact_sheet", found)
    monkeypatch.setattr(attention_stage, "contact_sheet", found)
    return found


@pytest.fixture
def poses(monkeypatch: pytest.MonkeyPatch) -> list[tuple[DrawnPose, DrawnPose | None]]:
    """The student's and the teacher's pose of every person that is drawn."""
    found: list[tuple[DrawnPose, DrawnPose | None]] = []

    def record(*arguments: Any) -> Any:
        found.append(arguments[-2:])
        return tiles_beside_teacher(*arguments)

    monkeypatch.setattr(student_stage, "tiles_beside_teacher", record)
    return found


def make_run(folder: Path, drawn: DrawnPeople, store: Path, **settings: Any) -> Path:
    """A run whose student has random weights, and Gaussians of the width ``SIGMA``."""
    config = TrainStudentConfig.model_validate(
        {"architecture": "distilpose-xs", "store": str(store), "images": drawn.images, **settings}
    )
    run = RunFolder(folder / "run")
    run.begin(config, {}, resume=False)
    network, info = load_network(save_network(folder / "random.safetensors"))
    with torch.no_grad():
        network.head.linear.weight[3:] = 0  # type: ignore[union-attr, operator]
        network.head.linear.bias[3:] = float(np.log(np.expm1(SIGMA)))  # type: ignore[union-attr, operator]
    save_weights(run.best_weights, network, info)
    return run.root


@pytest.fixture
def run(tmp_path: Path, drawn: DrawnPeople, store: Path) -> Path:
    return make_run(tmp_path, drawn, store, val_annotations=drawn.annotations)


def people_of(drawn: DrawnPeople) -> People:
    return read_people(drawn.annotations, drawn.images, PeopleSettings())


def draw(tmp_path: Path, run: Path, **settings: Any) -> None:
    config = ShowStudentConfig(run_folder=run, output=tmp_path / "s.png", **settings)
    assert show_student(config, NoProgress()) == tmp_path / "s.png"
    assert (tmp_path / "s.png").is_file()


def test_the_worst_people_are_those_of_the_lowest_oks_that_evaluate_measures(
    run: Path, drawn: DrawnPeople, sheet: Sheet, tmp_path: Path
) -> None:
    people = people_of(drawn)
    student = open_student(
        RunFolder(run).best_weights, flip_test=True, threshold=None, device="cpu"
    )
    oks = measure_localisation(people, predict_people(student.estimator, people, drawn.images)).oks
    expected = people.instance_id[np.argsort(oks)][:3].tolist()
    draw(tmp_path, run, worst=3)
    assert [int(re.findall(r"annotation (\d+)", text)[0]) for text in sheet.captions] == expected
    assert [text.split(".")[0] for text in sheet.captions] == ["1", "2", "3"]
    assert sheet.titles == ["truth", "student"]
    count = people.num_instances
    assert sheet.heading.startswith(f"The 3 of {count} people of {drawn.annotations.name} with the")
    assert f"mean OKS is {oks.mean():.2f}" in sheet.heading


def test_oks_is_that_of_the_evaluation_and_undefined_without_labels(drawn: DrawnPeople) -> None:
    people = people_of(drawn)
    rows = np.array([2, 0])
    keypoints = people.keypoints[rows, :, :2].astype(np.float64) + 9
    one = replace(people, keypoints=people.keypoints.copy())
    one.keypoints[0, :, 2] = 0
    found = pose_oks(one, rows, keypoints)
    student = np.nan_to_num(people.keypoints[..., :2].astype(np.float64)) + 9
    from pipeline.coco.poses import Poses

    poses = Poses(people.image_id[people.image_index], people.instance_id, student)
    assert found[0] == pytest.approx(measure_localisation(people, poses).oks[2], rel=1e-6)
    assert np.isnan(found[1])
    assert DrawnPose(keypoints[1], found[1]).label == "OKS not defined"
    bare = replace(people, skeleton=replace(people.skeleton, sigmas=()))
    assert np.isnan(pose_oks(bare, rows, keypoints)).all()


def test_heat_of_student_and_store_lies_where_their_keypoints_are(
    run: Path,
    drawn: DrawnPeople,
    store: Path,
    sheet: Sheet,
    poses: list[tuple[DrawnPose, DrawnPose]],
    tmp_path: Path,
) -> None:
    """The store's teacher knows the truth, in the frame msra and on crops twice as large."""
    people = people_of(drawn)
    draw(tmp_path, run, store=str(store), images=drawn.images, num_people=99)
    assert sheet.titles[-2:] == ["student's simulated heatmaps", "teacher's heatmaps"]
    assert len(poses) == people.num_instances
    network, info = load_network(RunFolder(run).best_weights)
    for row, (student, teacher) in enumerate(poses):
        assert student.heat is not None
        assert teacher.heat is not None
        image_to_crop = box_to_crop(people.bbox_xywh[row], (128, 96))
        name = people.image_name[people.image_index[row]]
        crop = warp_crop(decode_image(resolve_image(drawn.images, name)), image_to_crop, (128, 96))
        with torch.inference_mode():
            output = network(info.pixels.normalise(torch.from_numpy(crop[None])))
        points = output.keypoints[0].double().numpy() * [96, 128]
        # msra: a pixel x of the teacher's crop of 256 x 192 lies at x / 4; of ours half of it
        cells = apply(crop_to_heatmap("msra", (256, 192), (64, 48)), (points + 0.5) * 2 - 0.5)
        np.testing.assert_allclose(
            student.heat.heatmaps, encode_keypoints(cells, (64, 48), SIGMA), atol=1e-4
        )
        assert student.heat.label == "median sigma 2.00 cells"
        truth = apply(teacher.heat.image_to_heatmap, people.keypoints[row, :, :2])
        for keypoint in np.flatnonzero(teacher.heat.heatmaps.max(axis=(1, 2)) > 0.9):
            peak = teacher.heat.heatmaps[keypoint].argmax()
            y, x = divmod(int(peak), 48)
            np.testing.assert_allclose(truth[keypoint], [x, y], atol=0.51)


def test_a_run_that_learned_no_gaussian_has_no_simulated_heatmaps(
    drawn: DrawnPeople, store: Path, sheet: Sheet, tmp_path: Path
) -> None:
    plain = make_run(tmp_path, drawn, store, distillation=False)
    draw(tmp_path, plain, store=str(store), images=drawn.images, num_people=2)
    assert sheet.titles == ["truth", "student", "teacher", "teacher's heatmaps"]
    assert "simulated" not in sheet.legend


def test_confused_sides_are_said(drawn: DrawnPeople) -> None:
    people = people_of(drawn)
    swap = list(people.skeleton.flip_indices)
    truth = people.keypoints[0, :, :2].astype(np.float64)
    wrong = DrawnPose(truth[swap], float(pose_oks(people, np.array([0]), truth[None, swap])[0]))
    note = student_stage._note_on_sides(people, 0, wrong)
    assert note.endswith("with left and right exchanged the student's OKS would be 1.00")
    assert student_stage._note_on_sides(people, 0, DrawnPose(truth, 1.0)) == ""


def test_a_pose_is_drawn_in_the_rings_of_the_truth_in_the_colour_of_its_side() -> None:
    from pipeline.coco.people import Skeleton

    names = ("left_wrist", "right_wrist")
    skeleton = Skeleton(names, (), flip_indices_of_names(names), ())
    truth = np.array([[40, 60, 2], [160, 180, 2]], np.float32)
    pose = DrawnPose(np.array([[160.0, 60.0], [40.0, 180.0]]), 0.0)
    blank = np.full((320, 240, 3), 99, np.uint8)
    whole = np.array([[1.0, 0, 0], [0, 1, 0]])
    tiles = tiles_beside_teacher(blank, whole, truth, skeleton, pose, pose)
    assert len(tiles) == 3
    assert tuple(tiles[0][60, 40]) == LEFT_COLOUR
    assert tuple(tiles[0][180, 160]) == RIGHT_COLOUR
    for tile in tiles[1:]:
        assert tuple(tile[60, 160]) == LEFT_COLOUR
        assert tuple(tile[180, 40]) == RIGHT_COLOUR
        assert tuple(tile[60, 40]) == (99, 99, 99), "a ring leaves its middle free"
        assert (tile[45:76, 25:56] == LEFT_COLOUR).all(axis=-1).any()


def test_attention_is_drawn_by_layer_for_each_keypoint_of_a_student_and_of_a_teacher(
    run: Path, drawn: DrawnPeople, sheet: Sheet, tmp_path: Path
) -> None:
    def show_it(folder: Path, **settings: Any) -> None:
        show_attention(ShowAttentionConfig(attention=folder, output=tmp_path / "a.png", **settings))

    show_it(run, keypoints=("left_wrist", "nose"))
    assert sheet.titles == ["prediction", "layer 1", "layer 2", "layer 3", "layer 4"]
    assert [text.split(",")[0] for text in sheet.captions] == ["left wrist", "nose"] * 2
    assert "8 x 6 patches" in sheet.legend
    teacher = RunFolder(tmp_path / "teacher")
    config = TrainTeacherConfig(
        architecture="tokenpose-xs", annotations=drawn.annotations, images=drawn.images
    )
    teacher.begin(config, {}, resume=False)
    save_network(teacher.best_weights, "tokenpose-xs")
    show_it(teacher.root, num_people=1)
    assert len(sheet.captions) == attention_stage.NUM_KEYPOINTS
    assert "tokenpose-xs" in sheet.heading
    with pytest.raises(ConfigError, match=r"no keypoint 'elbow'; keypoints: nose, left_eye"):
        show_it(run, keypoints=("elbow",))


def test_the_attention_of_a_person_sums_to_one_and_points_are_the_networks(tmp_path: Path) -> None:
    network, info = load_network(save_network(tmp_path / "w.safetensors"))
    crops = np.random.default_rng(0).integers(0, 256, (2, 128, 96, 3), np.uint8)
    found = attend(network, info, crops, "cpu")
    with torch.inference_mode():
        output = network(info.pixels.normalise(torch.from_numpy(crops)))
    for person, points in zip(found, output.keypoints.numpy(), strict=True):
        assert person.to_image.shape == (4, 17, 8, 6)
        assert person.to_keypoints.shape == (4, 17, 17)
        total = person.to_image.sum(axis=(-2, -1)) + person.to_keypoints.sum(axis=-1)
        np.testing.assert_allclose(total, 1, atol=1e-5)
        np.testing.assert_allclose(person.keypoints, points * [96, 128], rtol=1e-6)


def test_all_layers_are_shown_of_few_and_the_first_to_the_last_of_many() -> None:
    assert shown_layers(4) == [0, 1, 2, 3]
    assert shown_layers(12) == [0, 2, 4, 7, 9, 11]
    assert shown_layers(24)[-1] == 23


def test_a_network_without_tokens_has_no_attention() -> None:
    network = PoseNetwork()
    network.architecture = "timm:resnet18"
    with pytest.raises(ConfigError, match="timm:resnet18 has no token encoder"):
        encoder_of(network)


def test_a_run_that_names_no_people_says_which_options_do(
    drawn: DrawnPeople, store: Path, sheet: Sheet, tmp_path: Path
) -> None:
    bare = make_run(tmp_path, drawn, store)
    with pytest.raises(ConfigError, match=r"names no people to draw; give --annotations and"):
        draw(tmp_path, bare)
    draw(tmp_path, bare, annotations=drawn.annotations, images=drawn.images, num_people=2)
    gone = RunFolder(bare)
    config = gone.read_config(TrainStudentConfig)
    moved = config.model_copy(update={"val_annotations": Path("/no/val.json")})
    gone.config.write_text(moved.to_json())
    with pytest.raises(ConfigError, match=r"names /no/val.json, but it is not there; give --ann"):
        draw(tmp_path, bare)


REFUSALS: list[tuple[Mapping[str, Any], str]] = [
    ({}, "nothing to draw is given; give a STORE, --run-folder of a student, or --attention"),
    ({"store": "s", "worst": 3}, "worst has no effect with store, only with run_folder"),
    ({"attention": "r", "run_folder": "r"}, "run_folder has no effect with attention"),
    ({"run_folder": "r", "num_views": 2}, "num_views has no effect with run_folder, only with st"),
    ({"run_folder": "r", "keypoints": ("nose",)}, "keypoints has no effect with run_folder"),
    ({"run_folder": "r", "worst": 3, "num_people": 4}, "worst is the number of people"),
    ({"run_folder": "r", "store": "s", "teacher": "t"}, "a store has its own teacher"),
    ({"run_folder": "r", "store": "s", "annotations": "a", "images": "i"}, "has its own people"),
    ({"run_folder": "r", "annotations": "a"}, "--annotations need --images"),
    ({"run_folder": "r", "teacher_name": "b"}, "--teacher-name has no effect without a store"),
    ({"run_folder": "r", "teacher_settings": {"scale": 1.0}}, "have no effect without --teacher"),
    ({"run_folder": "r", "output": "a.jpg"}, "must be a file name that ends in .png"),
    ({"run_folder": "r", "worse": 3}, "unknown setting worse"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSALS)
def test_settings_that_contradict_each_other_are_refused(
    settings: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(DistilError, match=re.escape(message)):
        picture_of({"output": "a.png", **settings})
