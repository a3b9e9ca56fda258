"""Images in memory give the poses that image files give, whatever the batches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.coco.boxes import Boxes
from pipeline.coco.image_files import decode_image
from pipeline.coco.people import People
from pipeline.coco.read_people import read_people
from pipeline.errors import PeopleError
from pipeline.models.pose_networks import Student
from pipeline.prediction.estimators import StudentEstimator, predict_people
from pipeline.prediction.image_poses import predict_image, predict_images
from pipeline.prediction.networks import OpenedNetwork, open_student_at
from pipeline.prediction.pose_scores import instance_scores
from pipeline.runs.checkpoints import load_network
from pipeline.settings import PeopleSettings
from tests.support.evaluation_sample import SIZE_HW, draw_sample, save_network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    draw_sample(folder)
    save_network(folder / "student.safetensors")
    return folder


@pytest.fixture(scope="module")
def people(folder: Path) -> People:
    return read_people(folder / "people.json", folder, PeopleSettings())


@pytest.fixture(scope="module")
def student(folder: Path) -> OpenedNetwork:
    return open_student_at(folder / "student.safetensors", device="cpu")


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_boxes_in_images_give_what_people_in_files_give(
    folder: Path, people: People, student: OpenedNetwork, batch_size: int
) -> None:
    images = [decode_image(folder / name) for name in people.image_name]
    boxes = [
        Boxes.of(people.bbox_xywh[people.image_index == image]) for image in range(len(images))
    ]
    found = predict_images(student, images, boxes, batch_size=batch_size)
    expected = predict_people(student.estimator, people, folder, padding=student.padding)
    keypoints = np.concatenate([poses.keypoints for poses in found])
    np.testing.assert_allclose(keypoints, expected.keypoints, atol=1e-3)
    scores = np.concatenate([poses.scores for poses in found])
    np.testing.assert_allclose(scores, instance_scores(expected, student.rule), atol=1e-5)
    assert [poses.num_people for poses in found] == [2, 2, 2]


def test_an_image_without_boxes_is_one_persons(student: OpenedNetwork) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE_HW, 3), np.uint8)
    whole = predict_image(student, image)
    height, width = SIZE_HW
    same = predict_image(student, image, [[0, 0, width, height]], padding=1.0)
    np.testing.assert_array_equal(whole.keypoints, same.keypoints)
    np.testing.assert_array_equal(whole.bbox_xywh, [[0, 0, width, height]])
    direct = student.estimator.estimate(image[None])  # the image is the crop, pixel for pixel
    np.testing.assert_allclose(whole.keypoints, direct.keypoints, atol=1e-3)
    assert whole.sigmas is not None
    assert direct.sigmas is not None
    np.testing.assert_allclose(whole.sigmas, direct.sigmas, atol=1e-5)


def test_sigmas_are_the_mean_over_both_crops(folder: Path) -> None:
    network, info = load_network(folder / "student.safetensors")
    assert isinstance(network, Student)
    crops = np.random.default_rng(1).integers(0, 256, (2, *SIZE_HW, 3), np.uint8)
    plain = StudentEstimator(network, info.flip_indices, flip_test=False)
    both = StudentEstimator(network, info.flip_indices).estimate(crops).sigmas
    one, other = plain.estimate(crops).sigmas, plain.estimate(crops[:, :, ::-1].copy()).sigmas
    assert both is not None
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(both, (one + other[:, list(info.flip_indices)]) / 2, rtol=1e-6)


def test_nobody_in_an_image_is_no_error(student: OpenedNetwork) -> None:
    image = np.zeros((50, 60, 3), np.uint8)
    found = predict_images(student, [image, image], [Boxes.of([]), Boxes.of([[1, 2, 30, 40]])])
    assert [poses.num_people for poses in found] == [0, 1]
    assert predict_images(student, [], []) == []


def test_repeated_poses_are_dropped_and_a_crowd_is_kept(student: OpenedNetwork) -> None:
    image = np.random.default_rng(0).integers(0, 256, (400, 900, 3), np.uint8)
    corners = [[30 * column, 90 * row, 28, 80] for row in range(4) for column in range(30)]
    crowd = Boxes.of([*corners, corners[0]], [*np.linspace(0.5, 0.9, 120), 0.95])
    (found,) = predict_images(student, [image], [crowd], drop_duplicates=True)
    assert found.num_people == 120
    assert (np.diff(found.scores) <= 0).all()
    (everyone,) = predict_images(student, [image], [crowd])
    assert everyone.num_people == 121
    unknown = replace(student, skeleton=replace(student.skeleton, sigmas=()))
    assert predict_images(unknown, [image], [crowd], drop_duplicates=True)[0].num_people == 121


@pytest.mark.parametrize("box", [[0, 0, 0, 5], [0, 0, 5, -1], [0, np.nan, 5, 5]])
def test_a_box_without_pixels_is_refused(student: OpenedNetwork, box: list[float]) -> None:
    with pytest.raises(PeopleError, match=r"box 1 is \[.*\]; expected finite x, y, width"):
        predict_image(student, np.zeros((9, 9, 3), np.uint8), np.array([[0, 0, 5, 5], box]))


def test_a_photograph_from_a_telephone_is_turned_upright(tmp_path: Path) -> None:
    from pipeline.coco.image_files import decode_upright

    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :10] = 255  # its left, which orientation 6 (turn clockwise) brings to the top
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "photo.png", exif=exif)
    upright = decode_upright(tmp_path / "photo.png")
    assert upright.shape == (30, 20, 3)
    assert upright[:10].min() == 255
    assert upright[10:].max() == 0
    np.testing.assert_array_equal(decode_image(tmp_path / "photo.png"), pixels)
