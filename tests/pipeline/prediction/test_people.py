"""Laws of prediction: flips are aligned, batches invisible, boxes in order, no error is lost."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.coco.people import People
from pipeline.coco.poses import NO_ANNOTATION
from pipeline.errors import ImageError
from pipeline.frames.geometry import apply, box_to_crop, invert
from pipeline.models.heads import StudentOutput
from pipeline.models.pose_networks import RegressionStudent, build_network
from pipeline.prediction.estimators import (
    CropPoses,
    StudentEstimator,
    TeacherEstimator,
    predict_people,
)
from pipeline.settings import IMAGENET_MEAN, IMAGENET_STD, TeacherSettings
from pipeline.teachers.network import Prediction
from pipeline.teachers.teacher import Teacher

SIZE_HW = (32, 24)
SWAP = (1, 0, 2)


class BrightestPixel:
    """Finds the brightest pixel of each channel; its score is the channel's mean."""

    input_size_hw = SIZE_HW

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []

    def estimate(self, crops: NDArray[np.uint8]) -> CropPoses:
        self.batch_sizes.append(len(crops))
        flat = crops.reshape(len(crops), -1, 3).argmax(axis=1)
        rows, columns = np.divmod(flat, SIZE_HW[1])
        keypoints = np.stack([columns, rows], axis=-1).astype(np.float64)
        return CropPoses(keypoints, crops.mean(axis=(1, 2)).astype(np.float64))


@pytest.fixture(scope="module")
def people(make_people: Any) -> People:
    """Five people on three images of 2000 x 2000, three keypoints."""
    made: People = make_people([0, 0, 1, 2, 2], num_keypoints=3, sigmas=(0.1,) * 3)
    sizes = np.tile([400, 400], (3, 1))
    boxes = made.bbox_xywh % 200 + [0, 0, 40, 40]
    return replace(made, image_size_hw=sizes, bbox_xywh=boxes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for index in range(3):
        pixels = random.integers(0, 256, (400, 400, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.jpg", quality=95)
    return folder


@pytest.fixture(scope="module")
def student() -> RegressionStudent:
    torch.manual_seed(0)
    network = build_network("distilpose-xs", 3)
    assert isinstance(network, RegressionStudent)
    return network


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (4, 128, 96, 3), np.uint8)


def test_a_student_answers_in_pixels_of_its_crop(
    student: RegressionStudent, crops: NDArray[np.uint8]
) -> None:
    images = (torch.from_numpy(crops).double() / 255 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(
        IMAGENET_STD
    )
    with torch.inference_mode():
        output: StudentOutput = student.eval()(images.float().permute(0, 3, 1, 2))
    poses = StudentEstimator(student, SWAP, flip_test=False).estimate(crops)
    expected = output.keypoints.numpy() * [96, 128]
    np.testing.assert_allclose(poses.keypoints, expected, atol=1e-3)
    np.testing.assert_allclose(poses.scores, output.scores.numpy(), atol=1e-5)


def test_the_flip_test_averages_points_and_swapped_scores_in_one_place(
    student: RegressionStudent, crops: NDArray[np.uint8]
) -> None:
    """A point of the mirrored crop comes back by x' = W - 1 - x, as the keypoint it really is."""
    plain = StudentEstimator(student, SWAP, flip_test=False)
    here, there = plain.estimate(crops), plain.estimate(crops[:, :, ::-1].copy())
    back = there.keypoints[:, list(SWAP)] * [-1, 1] + [95, 0]
    poses = StudentEstimator(student, SWAP).estimate(crops)
    np.testing.assert_allclose(poses.keypoints, (here.keypoints + back) / 2, atol=1e-9)
    np.testing.assert_allclose(
        poses.scores, (here.scores + there.scores[:, list(SWAP)]) / 2, atol=1e-9
    )


def test_the_flip_test_of_a_mirrored_crop_is_the_mirrored_pose(
    student: RegressionStudent, crops: NDArray[np.uint8]
) -> None:
    """Whatever the network does: a law that a misaligned flip by one pixel breaks."""
    estimator = StudentEstimator(student, SWAP)
    poses, mirrored = (estimator.estimate(c) for c in (crops, crops[:, :, ::-1].copy()))
    expected = poses.keypoints[:, list(SWAP)] * [-1, 1] + [95, 0]
    np.testing.assert_allclose(mirrored.keypoints, expected, atol=1e-3)
    np.testing.assert_allclose(mirrored.scores, poses.scores[:, list(SWAP)], atol=1e-5)


def test_a_student_in_training_stays_in_training(
    student: RegressionStudent, crops: NDArray[np.uint8]
) -> None:
    """Its answers are those of evaluation mode, and its statistics do not move."""
    expected = StudentEstimator(student.eval(), SWAP).estimate(crops)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    found = StudentEstimator(student.train(), SWAP).estimate(crops)
    assert student.training
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_a_teacher_estimator_gives_the_teachers_points_and_peaks() -> None:
    class Network:
        kind = architecture = "fixed"
        sha256 = "0" * 64
        input_size_hw, heatmap_size_hw = SIZE_HW, (8, 6)
        num_keypoints = 3
        keypoint_names: tuple[str, ...] | None = None
        heatmap_frame: Any = "msra"
        fixed_batch_size: int | None = None
        num_threads: int | None = None
        token_shape: tuple[int, tuple[int, int]] | None = None

        def forward(self, images: NDArray[np.float32], with_tokens: bool = False) -> Prediction:
            return Prediction(
                images.reshape(len(images), 3, 8, 4, 6, 4).mean(axis=(3, 5)).astype(np.float32)
            )

        def execution(self) -> dict[str, Any]:
            return {}

    teacher = Teacher(Network(), TeacherSettings(flip_test=True))
    crops = np.random.default_rng(2).integers(0, 256, (3, *SIZE_HW, 3), np.uint8)
    output = teacher.predict_and_decode(crops, SWAP)
    poses = TeacherEstimator(teacher, SWAP).estimate(crops)
    np.testing.assert_array_equal(poses.keypoints, output.keypoints)
    np.testing.assert_array_equal(poses.scores, output.confidences)
    assert TeacherEstimator(teacher, SWAP).input_size_hw == SIZE_HW


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 64])
def test_the_batch_size_does_not_matter(people: People, folder: Path, batch_size: int) -> None:
    """Batches run across images, and only the last is short."""
    expected = predict_people(BrightestPixel(), people, folder)
    estimator = BrightestPixel()
    told: list[int] = []
    found = predict_people(
        estimator, people, folder, batch_size=batch_size, on_progress=told.append
    )
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    np.testing.assert_array_equal(found.keypoint_scores, expected.keypoint_scores)
    full, rest = divmod(5, batch_size)
    assert estimator.batch_sizes == told == [batch_size] * full + [rest] * (rest > 0)


def test_poses_are_in_image_pixels_and_carry_their_person(people: People, folder: Path) -> None:
    """A crop's brightest red is one of the image's brighter reds, at the place that is told."""
    found = predict_people(BrightestPixel(), people, folder, padding=1.5)
    assert found.image_id.tolist() == people.image_id[people.image_index].tolist()
    assert found.annotation_id.tolist() == people.instance_id.tolist()
    assert found.box_score.tolist() == [1] * 5
    for row in range(5):
        to_crop = box_to_crop(people.bbox_xywh[row], SIZE_HW, 1.5)
        in_crop = apply(to_crop, found.keypoints[row])
        np.testing.assert_allclose(in_crop, np.rint(in_crop), atol=1e-6)
        area = SIZE_HW[0] * SIZE_HW[1] / np.linalg.det(to_crop[:, :2])
        assert found.crop_area[row] == pytest.approx(area)
        corners = apply(invert(to_crop), [[0, 0], [SIZE_HW[1] - 1, SIZE_HW[0] - 1]])
        assert ((found.keypoints[row] >= corners[0] - 1e-6) & (found.keypoints[row] <= corners[1] + 1e-6)).all()  # fmt: skip  # noqa: E501


def test_a_detectors_boxes_come_back_in_their_own_order(people: People, folder: Path) -> None:
    """Boxes of people found again give the people's poses, whatever their order and image."""
    expected = predict_people(BrightestPixel(), people, folder)
    order = np.array([4, 0, 3, 1, 2])
    boxed = people.with_boxes(
        people.image_index[order],
        people.bbox_xywh[order],
        np.array([0.9, 0.8, 0.7, 0.6, 0.5]),
    )
    found = predict_people(BrightestPixel(), boxed, folder, batch_size=2)
    np.testing.assert_array_equal(found.keypoints, expected.keypoints[order])
    np.testing.assert_array_equal(found.image_id, expected.image_id[order])
    np.testing.assert_array_equal(found.crop_area, expected.crop_area[order])
    assert found.annotation_id.tolist() == [NO_ANNOTATION] * 5
    assert found.box_score.tolist() == [0.9, 0.8, 0.7, 0.6, 0.5]


def test_no_boxes_give_no_poses(people: People, folder: Path) -> None:
    nobody = people.with_boxes(np.zeros(0, np.int64), np.zeros((0, 4)))
    assert predict_people(BrightestPixel(), nobody, folder).keypoints.shape == (0, 3, 2)


def test_an_image_that_cannot_be_read_is_an_error(
    people: People, folder: Path, tmp_path: Path
) -> None:
    for path in folder.iterdir():
        content = path.read_bytes()
        half = path.name == "1.jpg"
        (tmp_path / path.name).write_bytes(content[: len(content) // 2] if half else content)
    with pytest.raises(ImageError, match=r"1\.jpg' cannot be read: .*; replace the file"):
        predict_people(BrightestPixel(), people, tmp_path)
