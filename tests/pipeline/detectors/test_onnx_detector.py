"""A detector's boxes come back in the image, whatever shape the image has."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.detectors.onnx_detector import OnnxDetector
from pipeline.detectors.settings import DetectorSettings
from pipeline.errors import ConfigError, TeacherError
from tests.support.onnx_detector import write_onnx_detector


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_onnx_detector(tmp_path / "detector.onnx")


def open_detector(path: Path, min_score: float = 0.5, **settings: object) -> OnnxDetector:
    return OnnxDetector(path, DetectorSettings.model_validate(settings), min_score=min_score)


def wide_image() -> NDArray[np.uint8]:
    """An image of 100 x 200 with one white cell of the input, whose scale is 0.32 from row 16 on.

    The input's cell of column 3 and row 3 is the image's x from 75 to 100 and y from 25 to 50.
    """
    image = np.zeros((100, 200, 3), np.uint8)
    image[25:50, 75:100] = 255
    return image


def test_a_box_is_where_its_light_is_in_an_image_of_another_aspect(model: Path) -> None:
    found = open_detector(model).detect(wide_image())
    # Two by four cells of 8 pixels around (28, 28), less the margin of 16 rows, times 1 / 0.32.
    np.testing.assert_allclose(found.bbox_xywh, [[62.5, 0, 50, 87.5]], atol=1e-9)
    assert found.scores[0] > 0.9


def test_a_stretched_image_gives_the_box_in_its_own_aspect(model: Path) -> None:
    image = np.zeros((128, 32, 3), np.uint8)  # each cell is 4 x 16 pixels
    image[48:64, 16:20] = 255
    found = open_detector(model, keep_aspect=False).detect(image)
    np.testing.assert_allclose(found.bbox_xywh, [[14, 24, 8, 64]], atol=1e-9)


def test_red_is_read_where_the_settings_say(model: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[24:32, 24:32, 0] = 255
    assert len(open_detector(model).detect(image).scores) == 1
    assert len(open_detector(model, channel_order="bgr").detect(image).scores) == 0
    halved = open_detector(model, min_score=0.0, mean=(0.5, 0, 0), std=(2, 1, 1)).detect(image)
    np.testing.assert_allclose(halved.scores.max(), 0.25, atol=1e-6)


def test_low_scores_and_boxes_outside_the_image_are_left_out(model: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[8:16, 8:16], image[40:48, 40:48] = 120, 255
    found = open_detector(model).detect(image)
    np.testing.assert_allclose(found.bbox_xywh, [[36, 28, 16, 32]])
    both = open_detector(model, min_score=0.4).detect(image)
    assert both.scores.tolist() == sorted(both.scores, reverse=True)
    np.testing.assert_allclose(both.bbox_xywh[1], [4, 0, 16, 28])


def test_of_boxes_that_overlap_the_better_stays(model: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[24:32, 24:32], image[24:32, 40:48] = 255, 200
    assert len(open_detector(model).detect(image).scores) == 2
    image[24:32, 32:40] = 100  # no light between the two is a maximum of its own
    assert len(open_detector(model, min_score=0.3).detect(image).scores) == 2
    wide = write_onnx_detector(model.parent / "wide.onnx", box_cells=(6.0, 4.0))
    # Two cells apart, boxes of 6 cells overlap by 4 / 8.
    assert len(open_detector(wide, overlap=0.6).detect(image).scores) == 2
    assert len(open_detector(wide, overlap=0.4).detect(image).scores) == 1


def test_a_dynamic_input_needs_its_size_and_a_fixed_one_refuses_another(tmp_path: Path) -> None:
    dynamic = write_onnx_detector(tmp_path / "dynamic.onnx", is_dynamic=True)
    with pytest.raises(ConfigError, match=r"takes any height and width; give them with --set"):
        open_detector(dynamic)
    assert open_detector(dynamic, input_size_hw=(64, 64)).detect(wide_image()).scores.size == 1
    fixed = write_onnx_detector(tmp_path / "fixed.onnx")
    with pytest.raises(ConfigError, match=r"takes 64x64 .* but .* is \(32, 32\); leave it out"):
        open_detector(fixed, input_size_hw=(32, 32))


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "detector.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(TeacherError, match=r"onnxruntime cannot load .*detector\.onnx"):
        open_detector(path)
