"""Laws of the probe: which people it shows a teacher, and how many bytes their maps take."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import TeacherError
from pipeline.teachers.probe import measure_bytes_per_view
from store_schemas.formats import PROFILES
from tests.support.dotted_people import (
    CELLS_HW,
    NUM_PEOPLE,
    SIZE_HW,
    DotNetwork,
    Dotted,
    draw_dotted,
    gaussians,
    probe_of,
    teacher_of,
)

DEFAULT = PROFILES["default"]


def test_a_probe_is_spread_over_all_people(dotted: Dotted) -> None:
    probe = dotted.probe(teacher_of(DotNetwork()), 4)
    assert probe.rows.tolist() == [0, 8, 15, 23]
    assert probe.crops.shape == (4, *SIZE_HW, 3)
    np.testing.assert_array_equal(probe.image_to_crop, dotted.image_to_crop[probe.rows, 0])
    assert dotted.probe(teacher_of(DotNetwork()), 1000).rows.tolist() == list(range(NUM_PEOPLE))


def test_unreadable_images_are_left_out_of_the_probe(tmp_path: Path) -> None:
    dotted = draw_dotted(tmp_path)
    whole = dotted.probe(teacher_of(DotNetwork()))
    path = tmp_path / "1.png"
    path.write_bytes(path.read_bytes()[:200])
    probe = dotted.probe(teacher_of(DotNetwork()))
    assert probe.rows.tolist() == [0, 1, *range(4, NUM_PEOPLE)]
    np.testing.assert_array_equal(probe.heatmaps, whole.heatmaps[probe.rows])


def test_a_probe_without_any_readable_image_is_refused(tmp_path: Path) -> None:
    dotted = draw_dotted(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(TeacherError, match=r"of the probe's 12 images none can be read: image .*0"):
        dotted.probe(teacher_of(DotNetwork()))


def test_more_heat_takes_more_bytes() -> None:
    empty = measure_bytes_per_view(probe_of(0 * gaussians()), 0.01, DEFAULT)
    drawn = measure_bytes_per_view(probe_of(gaussians()), 0.01, DEFAULT)
    uncompressed = 4 * CELLS_HW[0] * CELLS_HW[1]
    assert 16 * 4 < empty < drawn < uncompressed
