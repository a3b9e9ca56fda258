"""``predict``: the poses that evaluate measures, on photographs and videos; bad files are named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cli import main
from pipeline.coco.image_files import decode_image
from pipeline.media.video_files import Frame, VideoWriter, read_frames
from pipeline.runs.run_folder import RunFolder
from stages import predict as predict_stage
from stages.predict import predict
from stages.settings.prediction import PredictConfig
from stages.settings.training import TrainStudentConfig
from tests.support.drawn_people import DrawnPeople
from tests.support.evaluation_sample import save_network
from tests.support.onnx_detector import write_onnx_detector


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student with random weights, in the run folder of a training that taught it no sigmas."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    run = RunFolder(folder)
    run.best_weights.parent.mkdir(parents=True)
    settings = {"store": "teacher.zarr", "images": "images", "loss": {"simulated_heatmap": 0}}
    (folder / "config.json").write_text(TrainStudentConfig.model_validate(settings).to_json())
    save_network(run.best_weights, scored_keypoints=tuple(range(17)), edges=((5, 6), (11, 12)))
    return folder


def distil(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def write_film(path: Path, num_frames: int = 6) -> Path:
    """Film a red square of 16 pixels that goes to the right on black, 16 pixels a frame."""
    with VideoWriter(path) as writer:
        for index in range(num_frames):
            image = np.zeros((64, 128, 3), np.uint8)
            image[16:32, 16 * index + 16 : 16 * index + 32, 0] = 255
            writer.write(image, index / 25)
    return path


def test_the_poses_are_those_that_evaluate_measures(
    drawn: DrawnPeople, student: Path, tmp_path: Path
) -> None:
    """Same ids, same boxes, same scores; every photograph is drawn."""
    options = (
        "--annotations",
        drawn.annotations,
        "--images",
        drawn.images,
        "--run-folder",
        student,
    )
    assert distil("evaluate", *options, "--output", tmp_path / "e").exit_code == 0
    result = distil(
        *("predict", drawn.images, "--student", student, "--detections", drawn.annotations),
        *("--output", tmp_path / "out", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    expected = {
        (r["image_id"], *r["keypoints"][:2]): r for r in read(tmp_path / "e", "results.json")
    }
    found = read(tmp_path / "out", "results.json")
    poses = {r["image_id"]: [] for r in found}  # type: ignore[var-annotated]
    for each in found:
        poses[each["image_id"]].append(each)
    for each in expected.values():
        nearest = min(
            poses[each["image_id"]],
            key=lambda pose: abs(np.subtract(pose["keypoints"], each["keypoints"])).max(),
        )
        np.testing.assert_allclose(nearest["keypoints"], each["keypoints"], atol=2e-3)
        assert nearest["score"] == pytest.approx(each["score"], abs=1e-5)
        assert "sigmas" not in nearest
        assert "track_id" not in nearest
    document = read(tmp_path / "out", "images.json")
    assert {i["id"]: i["file_name"] for i in document["images"]} == {
        i["id"]: i["file_name"] for i in json.loads(drawn.annotations.read_text())["images"]
    }
    names = [Path(image["file_name"]).stem for image in document["images"]]
    for name in names:
        picture = decode_image(tmp_path / "out" / "pictures" / f"{name}.jpg")
        source = decode_image(next(drawn.images.glob(f"{name}.*")))
        assert picture.shape == source.shape
        assert (abs(picture.astype(int) - source) > 60).any()
    assert f"wrote {tmp_path / 'out'}: {len(found)} poses in {len(names)} images" in result.output


def test_one_pose_is_counted_as_one(drawn: DrawnPeople, student: Path, tmp_path: Path) -> None:
    photograph = sorted(drawn.images.iterdir())[0]
    result = distil(
        *("predict", photograph, "--student", student, "--whole-image", "--no-pictures"),
        *("--output", tmp_path / "out", "--device", "cpu"),
    )
    assert f"wrote {tmp_path / 'out'}: 1 pose in 1 image, " in result.output


def test_results_can_be_loaded_by_pycocotools(
    drawn: DrawnPeople, student: Path, tmp_path: Path
) -> None:
    from pycocotools.coco import COCO

    config = PredictConfig(
        student=student, inputs=(str(drawn.images),), whole_image=True, output=tmp_path / "out",
        draw=False, flip_test=False,
    )  # fmt: skip
    result = predict(config)
    truth = COCO(str(tmp_path / "out" / "images.json"))
    loaded = truth.loadRes(str(tmp_path / "out" / "results.json"))
    assert len(loaded.anns) == result.num_poses == result.num_images
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "images.json",
        "results.json",
    ]


def test_a_bad_file_is_named_and_the_rest_goes_on(student: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "c.png"):
        Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(folder / name)
    (folder / "b.jpg").write_bytes(b"no image")
    (folder / "notes.txt").touch()
    result = distil(
        *("predict", folder, "--student", student, "--whole-image", "--output", tmp_path / "out"),
        *("--device", "cpu", "--no-flip-test"),
    )
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert (
        lines[0] == f"distil: left out 1 file of {folder}, neither photograph nor video by suffix"
    )
    assert lines[1].startswith(f"distil: image '{folder}/b.jpg' cannot be read")
    assert lines[-1].startswith("distil: 1 of the inputs could not be read whole")
    document = read(tmp_path / "out", "images.json")
    assert [(i["id"], i["file_name"]) for i in document["images"]] == [(1, "a.png"), (3, "c.png")]
    assert [each["image_id"] for each in read(tmp_path / "out", "results.json")] == [1, 3]


def test_two_files_of_one_name_do_not_overwrite_each_other(student: Path, tmp_path: Path) -> None:
    for name in ("a/x.png", "b/x.png", "b/x.bmp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path)
    predict(
        PredictConfig(
            student=student, inputs=(str(tmp_path / "a"), str(tmp_path / "b")), whole_image=True,
            output=tmp_path / "out",
        )
    )  # fmt: skip
    drawn = {path.name for path in (tmp_path / "out" / "pictures").iterdir()}
    assert drawn == {"x.jpg", "x-2.jpg", "x-3.jpg"}


def test_a_detector_finds_people_and_their_scores_count(student: Path, tmp_path: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[8:16, 8:16], image[40:48, 40:48] = 200, 255
    Image.fromarray(image).save(tmp_path / "photo.png")
    predict(
        PredictConfig(
            student=student, inputs=(str(tmp_path / "photo.png"),), min_box_score=0.5,
            detector=write_onnx_detector(tmp_path / "d.onnx"), output=tmp_path / "out",
        )
    )  # fmt: skip
    found = {tuple(each["bbox"]): each for each in read(tmp_path / "out", "results.json")}
    assert set(found) == {(36, 28, 16, 32), (4, 0, 16, 28)}
    for each in found.values():
        scores = np.array(each["keypoints"][2::3])
        assert each["score"] == pytest.approx(each["box_score"] * scores.mean(), abs=1e-5)


def test_in_a_video_a_person_keeps_the_track_and_boxes_follow_between_detections(
    student: Path, tmp_path: Path
) -> None:
    pytest.importorskip("av", reason="PyAV (the extra video) is not installed")
    film = write_film(tmp_path / "film.mp4")
    config = PredictConfig(
        student=student, inputs=(str(film),), output=tmp_path / "out", min_box_score=0.6,
        detector=write_onnx_detector(tmp_path / "d.onnx"), detect_every=3,
    )  # fmt: skip
    predict(config)
    found = read(tmp_path / "out", "results.json")
    document = read(tmp_path / "out", "images.json")
    frames = {image["id"]: image for image in document["images"]}
    assert [image["frame_index"] for image in document["images"]] == list(range(6))
    assert [image["seconds"] for image in document["images"]] == pytest.approx(
        [index / 25 for index in range(6)], abs=1e-3
    )
    assert {image["file_name"] for image in document["images"]} == {"film.mp4"}
    by_frame: dict[int, list[Any]] = {}
    for each in found:
        by_frame.setdefault(frames[each["image_id"]]["frame_index"], []).append(each)
    detected = [each["bbox"] for index in (0, 3) for each in by_frame[index]]
    assert detected == [[8, 0, 32, 56], [56, 0, 32, 56]]  # two by four cells of 16 pixels, cut off
    # The box is around the pose of the frame before. (Those of an untrained student soon vanish.)
    before = np.array(by_frame[0][0]["keypoints"]).reshape(-1, 3)[:, :2]
    box = np.array(by_frame[1][0]["bbox"])
    centre = np.clip(before, 0, (128, 64)).mean(axis=0)
    assert (box[:2] <= centre).all()
    assert (box[:2] + box[2:] >= centre).all()
    assert by_frame[1][0]["track_id"] == by_frame[0][0]["track_id"] == 1
    drawn = list(read_frames(tmp_path / "out" / "videos" / "film.mp4"))
    assert len(drawn) == 6
    assert drawn[0].image.shape == (64, 128, 3)


def test_detections_of_a_video_state_the_number_of_a_frame(student: Path, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV (the extra video) is not installed")
    film = write_film(tmp_path / "film.mp4", 4)
    boxes = [
        {"image_id": number, "category_id": 1, "bbox": [8 * number, 10, 30, 40], "score": 0.9}
        for number in (1, 2, 4)
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    result = predict(
        PredictConfig(
            student=student, inputs=(str(film),), detections=tmp_path / "boxes.json",
            output=tmp_path / "out", draw=False, max_frames=3,
        )
    )  # fmt: skip
    found = read(tmp_path / "out", "results.json")
    assert result.num_images == 3
    assert [each["image_id"] for each in found] == [1, 2, 3]
    assert [each["bbox"][0] for each in found[:2]] == [8, 16]
    assert found[2]["bbox"] != found[1]["bbox"]  # follows the pose


def test_a_webcam_ends_with_ctrl_c_and_what_was_seen_is_kept(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av", reason="PyAV (the extra video) is not installed")

    def frames(index: int) -> Any:
        for number in range(3):
            yield Frame(number, number / 10, np.full((40, 30, 3), 60 * number, np.uint8))
        raise KeyboardInterrupt

    monkeypatch.setattr(predict_stage, "read_webcam", frames)
    config = PredictConfig(
        student=student, inputs=("0",), whole_image=True, output=tmp_path / "out"
    )
    assert predict(config).num_images == 3
    assert len(list(read_frames(tmp_path / "out" / "videos" / "webcam0.mp4"))) == 3
    tracks = [each["track_id"] for each in read(tmp_path / "out", "results.json")]
    assert tracks == [1, 1, 1]


def test_a_webcam_that_is_not_there_is_named(student: Path, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV (the extra video) is not installed")

    class NoCamera:
        def __init__(self, index: int) -> None: ...
        def read(self) -> tuple[bool, None]:
            return False, None

        def release(self) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cv2.VideoCapture", NoCamera)
        result = predict(
            PredictConfig(student=student, inputs=("7",), whole_image=True, output=tmp_path / "out")
        )
    (message,) = result.failed
    assert message.startswith("webcam 7 gives no picture; expected the index of a camera")


def test_sigmas_are_written_where_a_loss_taught_them(student: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(tmp_path / "a.png")
    weights = RunFolder(student).best_weights
    predict(
        PredictConfig(
            student=weights, inputs=(str(tmp_path / "a.png"),), whole_image=True,
            output=tmp_path / "out", draw=False,
        )
    )  # fmt: skip
    (found,) = read(tmp_path / "out", "results.json")
    assert len(found["sigmas"]) == 2 * 17
    assert min(found["sigmas"]) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--output", "OUT"), "no boxes of people are given; give exactly one of --detections"),
        (
            ("--output", "OUT", "--whole-image", "--detector", "PHOTO"),
            "--detector and --whole-image are given; give exactly one",
        ),
        (("--output", "STUDENT", "--whole-image"), "holds files already"),
        (
            ("--output", "OUT", "--whole-image", "--detect-every", "3"),
            "has no effect without a det",
        ),
        (("--output", "OUT", "--whole-image", "--annotations", "PHOTO"), "leave annotations out"),
        (("--output", "OUT", "--whole-image", "--student", "gone"), "gone: cannot be read"),
        (("--output", "OUT", "--whole-image", "x.jpg"), "x.jpg: no such file"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    student: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(photo)
    places = {"OUT": tmp_path / "out", "STUDENT": student, "PHOTO": photo}
    given = [places.get(option, option) for option in options]
    result = distil("predict", photo, "--student", student, *given)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_detections_of_a_video_and_photographs_cannot_be_told_apart(
    student: Path, tmp_path: Path
) -> None:
    pytest.importorskip("av", reason="PyAV (the extra video) is not installed")
    for name in ("a.mp4", "b.jpg", "boxes.json"):
        (tmp_path / name).touch()
    result = distil(
        *("predict", tmp_path / "a.mp4", tmp_path / "b.jpg", "--student", student),
        *("--detections", tmp_path / "boxes.json", "--output", tmp_path / "out"),
    )
    assert result.exit_code == 1
    assert "the video must be the only input" in result.stderr
