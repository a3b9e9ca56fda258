"""Laws of the checks: a mis-set teacher is refused by what is wrong, a right one passes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.coco.people import IgnoreRegions, People, Skeleton
from pipeline.errors import TeacherError
from pipeline.frames.geometry import HeatmapFrame, apply, box_to_crop, crop_to_heatmap
from pipeline.frames.heatmaps import encode_keypoints
from pipeline.teachers.checks import (
    check_accuracy,
    check_mirror_gap,
    check_teacher,
    check_units,
    measure_accuracy,
    measure_mirror_gap,
    measure_units,
)
from pipeline.teachers.probe import Probe, measure_bytes_per_view, take_probe
from pipeline.teachers.teacher import Teacher, TeacherSettings
from store_schemas.profiles import PROFILES

DEFAULT = PROFILES["default"]
SIZE_HW, CELLS_HW = (128, 96), (32, 24)
NUM_PEOPLE = 24
COLOURS = ((255, 0, 0), (255, 255, 0), (255, 128, 0), (255, 0, 128))
NAMES = ("left_hand", "right_hand", "left_foot", "right_foot")
PAIRS, NO_PAIRS = (1, 0, 3, 2), (0, 1, 2, 3)
Maps = NDArray[np.float32]


class DotNetwork:
    """Finds a dot of each colour and draws a Gaussian there, in a frame of its own.

    A dot keeps its colour when the crop is mirrored, so it has no left and right: ``NO_PAIRS``.
    """

    kind = "dots"
    architecture = "dots"
    sha256 = "0" * 64
    input_size_hw = SIZE_HW
    heatmap_size_hw = CELLS_HW
    num_keypoints = 4
    keypoint_names: tuple[str, ...] | None = None
    fixed_batch_size: int | None = None

    def __init__(
        self,
        frame: HeatmapFrame = "half-pixel",
        change: Callable[[Maps], Maps] = lambda maps: maps,
        shift_cells: float = 0.0,
    ) -> None:
        self.heatmap_frame: HeatmapFrame = frame
        self._change, self._shift = change, shift_cells

    def forward(self, images: NDArray[np.float32]) -> Maps:
        wanted = np.array(COLOURS, np.float32) / 255
        away = np.abs(images[:, None] - wanted[:, :, None, None]).sum(axis=2)  # (B, K, H, W)
        weight = np.maximum(0.4 - away, 0)
        total = weight.sum(axis=(2, 3))
        total[total < 1] = np.nan
        x = (weight.sum(axis=2) * np.arange(SIZE_HW[1])).sum(axis=-1) / total
        y = (weight.sum(axis=3) * np.arange(SIZE_HW[0])).sum(axis=-1) / total
        to_heatmap = crop_to_heatmap(self.heatmap_frame, SIZE_HW, CELLS_HW)
        points = apply(to_heatmap, np.stack([x, y], axis=-1)) + np.array([self._shift, 0])
        return self._change(encode_keypoints(points, CELLS_HW))

    def execution(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Dotted:
    people: People
    folder: Path
    image_to_crop: NDArray[np.float64]

    def probe(self, teacher: Teacher, num_people: int = NUM_PEOPLE) -> Probe:
        return take_probe(teacher, self.people, self.folder, self.image_to_crop, num_people)

    def with_pairs(self, flip_indices: tuple[int, ...]) -> People:
        skeleton = replace(self.people.skeleton, flip_indices=flip_indices)
        return replace(self.people, skeleton=skeleton)


@pytest.fixture(scope="module")
def dotted(tmp_path_factory: pytest.TempPathFactory) -> Dotted:
    """24 people on 12 images: a box with a coloured dot at each of four keypoints."""
    return draw_dotted(tmp_path_factory.mktemp("images"))


def draw_dotted(folder: Path) -> Dotted:
    generator = np.random.default_rng(5)
    boxes = np.tile([20.0, 20.0, 96.0, 128.0], (NUM_PEOPLE, 1))
    boxes[1::2, 0] += 140
    corners = np.array([[20, 25], [76, 25], [20, 103], [76, 103]])
    points = boxes[:, None, :2] + corners + generator.uniform(-6, 6, (NUM_PEOPLE, 4, 2))
    for index in range(NUM_PEOPLE // 2):
        image = Image.new("RGB", (280, 170), (10, 10, 10))
        draw = ImageDraw.Draw(image)
        for person in (2 * index, 2 * index + 1):
            for (x, y), colour in zip(points[person].tolist(), COLOURS, strict=True):
                draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=colour)
        image.save(folder / f"{index}.png")
    none = np.zeros(0, np.int64)
    people = People(
        skeleton=Skeleton(NAMES, ((0, 1),), NO_PAIRS, (0.1,) * 4),
        category_id=1,
        image_id=np.arange(NUM_PEOPLE // 2),
        image_name=tuple(f"{index}.png" for index in range(NUM_PEOPLE // 2)),
        image_size_hw=np.tile([170, 280], (NUM_PEOPLE // 2, 1)),
        instance_id=100 + np.arange(NUM_PEOPLE),
        image_index=np.arange(NUM_PEOPLE) // 2,
        bbox_xywh=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        keypoints=np.dstack([points, np.full((NUM_PEOPLE, 4), 2)]).astype(np.float32),
        ignored=IgnoreRegions(
            none, none, np.zeros((0, 4)), np.zeros(0), none.astype(np.bool_), none
        ),
    )
    return Dotted(people, folder, box_to_crop(boxes, SIZE_HW)[:, None])


def teacher_of(network: DotNetwork, **settings: Any) -> Teacher:
    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return Teacher(network, TeacherSettings(**{**plain, **settings}))


def probe_of(heatmaps: Maps) -> Probe:
    rows = np.arange(len(heatmaps))
    crops = np.zeros((len(heatmaps), *SIZE_HW, 3), np.uint8)
    return Probe(rows, crops, heatmaps, np.zeros((len(heatmaps), 2, 3)))


def gaussians(peak: float = 1.0) -> Maps:
    points = np.random.default_rng(0).uniform(4, 20, (30, 4, 2))
    return np.float32(peak) * encode_keypoints(points, CELLS_HW)


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
    with pytest.raises(TeacherError, match=r"none of the probe's 12 images can be read: image .*0"):
        dotted.probe(teacher_of(DotNetwork()))


@pytest.mark.parametrize(
    ("truth", "setting", "advice"),
    [
        ("msra", "half-pixel", "0.00 cell apart, but 0.7. was .* use --heatmap-frame msra$"),
        ("msra", "udp", "0.00 cell apart, but 0.7. was .* use --heatmap-frame msra$"),
        ("half-pixel", "msra", "0.75 cell apart, but -?0.0. .*--heatmap-frame half-pixel or udp$"),
        ("udp", "msra", "0.75 cell apart, but -?0.0. .*--heatmap-frame half-pixel or udp$"),
    ],
)
def test_a_frame_that_mirror_symmetry_contradicts_is_refused_by_the_frame_that_fits(
    dotted: Dotted, truth: HeatmapFrame, setting: HeatmapFrame, advice: str
) -> None:
    teacher = teacher_of(DotNetwork(truth), heatmap_frame=setting)
    gap = measure_mirror_gap(teacher, dotted.probe(teacher), NO_PAIRS)
    with pytest.raises(TeacherError, match=f"heatmap frame {setting} puts .* {advice}"):
        check_mirror_gap(teacher, gap)


@pytest.mark.parametrize("frame", ["msra", "half-pixel", "udp"])
def test_the_right_frame_passes_and_its_gap_is_measured_to_a_tenth(
    dotted: Dotted, frame: HeatmapFrame
) -> None:
    teacher = teacher_of(DotNetwork(frame))
    gap = measure_mirror_gap(teacher, dotted.probe(teacher), NO_PAIRS)
    check_mirror_gap(teacher, gap)
    assert gap.num_maps == 4 * NUM_PEOPLE
    assert gap.measured == pytest.approx(gap.expected, abs=0.1)


def test_a_gap_of_no_known_frame_says_so(dotted: Dotted) -> None:
    teacher = teacher_of(DotNetwork("msra", shift_cells=0.5))
    gap = measure_mirror_gap(teacher, dotted.probe(teacher), NO_PAIRS)
    with pytest.raises(TeacherError, match=r"1\.7. was measured on 96 maps; no known frame fits"):
        check_mirror_gap(teacher, gap)


def test_too_few_maps_measure_nothing_and_refuse_nothing(dotted: Dotted) -> None:
    teacher = teacher_of(DotNetwork("msra"), heatmap_frame="half-pixel")
    gap = measure_mirror_gap(teacher, dotted.probe(teacher, 4), NO_PAIRS)
    assert (gap.measured, gap.num_maps) == (None, 16)
    check_mirror_gap(teacher, gap)


def test_gaussians_of_height_one_pass() -> None:
    units = measure_units(probe_of(gaussians()), DEFAULT)
    check_units(units)
    assert units.typical_peak == pytest.approx(1, abs=0.05)
    assert units.threshold == pytest.approx(0.015, rel=0.05)
    assert units.clamped_rms == 0


@pytest.mark.parametrize(
    ("peak", "shown"), [(0.1, "0.09"), (0.29, "0.29"), (1.6, "1.6"), (255, "25")]
)
def test_peaks_far_from_one_are_refused(peak: float, shown: str) -> None:
    with pytest.raises(
        TeacherError,
        match=rf"peaks lie below {shown}.*, expected 0\.3 to 1\.5: .* set --heatmap-gain, or",
    ):
        check_units(measure_units(probe_of(gaussians(peak)), DEFAULT))


@pytest.mark.parametrize("highest", [0.9, 4.0])
def test_logits_are_refused_by_the_setting_that_helps(highest: float) -> None:
    """Whether their peaks look like heat or not: most of their values are far below 0."""
    logits = 6 * gaussians() - np.float32(6 - highest)
    with pytest.raises(TeacherError, match=r"--heatmap-activation sigmoid if the model gives logi"):
        check_units(measure_units(probe_of(logits), DEFAULT))


def test_negative_heat_that_the_store_would_hide_is_refused() -> None:
    heat = gaussians() - np.float32(0.05)
    with pytest.raises(
        TeacherError, match=r"negative heat \(rms 0\.0\d+\), .* exceeds the codec's"
    ):
        check_units(measure_units(probe_of(heat), DEFAULT))


def test_a_little_negative_heat_passes() -> None:
    noise = np.random.default_rng(0).normal(0, 5e-4, gaussians().shape).astype(np.float32)
    check_units(measure_units(probe_of(gaussians() + noise), DEFAULT))


def test_float16_hides_no_negative_heat_and_has_no_threshold() -> None:
    heat = gaussians() - np.float32(0.05)
    units = measure_units(probe_of(heat), PROFILES["lossless-float16"])
    check_units(units)
    assert (units.threshold, units.clamped_rms) == (0, 0)


def test_maps_without_any_heat_are_refused() -> None:
    with pytest.raises(TeacherError, match=r"peaks lie below 0, expected 0\.3 to 1\.5"):
        check_units(measure_units(probe_of(0 * gaussians()), DEFAULT))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_maps_that_are_not_finite_are_refused(poison: float) -> None:
    heat = gaussians()
    heat[3, 1, 2, 2] = poison
    with pytest.raises(TeacherError, match=r"not finite; check its preprocessing \(--mean, --std"):
        measure_units(probe_of(heat), DEFAULT)


def test_more_heat_takes_more_bytes() -> None:
    empty = measure_bytes_per_view(probe_of(0 * gaussians()), 0.01, DEFAULT)
    drawn = measure_bytes_per_view(probe_of(gaussians()), 0.01, DEFAULT)
    uncompressed = 4 * CELLS_HW[0] * CELLS_HW[1]
    assert 16 * 4 < empty < drawn < uncompressed


def test_a_good_teacher_finds_all_and_passes(dotted: Dotted) -> None:
    teacher = teacher_of(DotNetwork())
    accuracy = measure_accuracy(teacher, dotted.probe(teacher), dotted.with_pairs(PAIRS))
    assert accuracy.median_pck == 1
    assert accuracy.alternatives["left and right swapped"] == 0
    assert accuracy.alternatives["channels in BGR order"] == 0
    check_accuracy(accuracy, NUM_PEOPLE)


def first_alone(maps: Maps) -> Maps:
    return maps * np.array([1, 0, 0, 0], np.float32)[:, None, None]


def test_unlabelled_keypoints_do_not_count(dotted: Dotted) -> None:
    teacher = teacher_of(DotNetwork(change=first_alone))
    keypoints = dotted.people.keypoints.copy()
    keypoints[:, 1:] = (np.nan, np.nan, 0)
    people = replace(dotted.people, keypoints=keypoints)
    assert measure_accuracy(teacher, dotted.probe(teacher), people).median_pck == 1


def swap_sides(maps: Maps) -> Maps:
    return maps[:, list(PAIRS)]


@pytest.mark.parametrize(
    ("network", "settings", "advice"),
    [
        (DotNetwork(change=swap_sides), {}, "with left and right swapped it would be 1.00: check"),
        (DotNetwork(), {"channel_order": "bgr"}, "with channels in RGB order it would be 1.00"),
        (DotNetwork(change=lambda maps: maps[:, :, ::-1]), {}, "no other order of channels, sides"),
    ],
)
def test_a_weak_teacher_is_refused_by_what_would_do_better(
    dotted: Dotted, network: DotNetwork, settings: dict[str, Any], advice: str
) -> None:
    teacher = teacher_of(network, **settings)
    accuracy = measure_accuracy(teacher, dotted.probe(teacher), dotted.with_pairs(PAIRS))
    with pytest.raises(
        TeacherError,
        match=rf"puts 0\.00 of .* \(median of 24 people\), expected at least 0\.2; {advice}"
        ".*--accept-weak-teacher goes on all the same",
    ):
        check_accuracy(accuracy, NUM_PEOPLE)


def test_all_checks_say_what_they_measured_and_weakness_can_be_accepted(dotted: Dotted) -> None:
    """A teacher that takes up for down is mirror-symmetric and in units: it is merely weak."""
    weak = teacher_of(DotNetwork(change=lambda maps: maps[:, :, ::-1]))
    said: list[str] = []
    with pytest.raises(TeacherError, match="--accept-weak-teacher"):
        check_teacher(weak, dotted.people, dotted.probe(weak), DEFAULT, say=said.append)
    check_teacher(weak, dotted.people, dotted.probe(weak), DEFAULT, accept_weak=True)
    assert [sentence.split(";")[0] for sentence in said] == [
        "probe: 24 people",
        "probe: mirror gap 0.00 cell on 96 maps, 0.00 expected of frame half-pixel",
        "probe: median PCK@0.2 against the truth 0.00",
    ]
