"""Laws of the checks: a mis-set teacher is refused by what is wrong, a right one passes."""

import numpy as np
import pytest

from pipeline.errors import TeacherError
from pipeline.frames.heatmaps import encode_keypoints
from pipeline.settings import HeatmapFrame
from pipeline.teachers.checks import (
    check_mirror_gap,
    check_teacher,
    check_units,
    measure_mirror_gap,
    measure_units,
)
from store_schemas.formats import PROFILES
from tests.support.dotted_people import (
    CELLS_HW,
    NO_PAIRS,
    NUM_PEOPLE,
    DotNetwork,
    Dotted,
    gaussians,
    probe_of,
    teacher_of,
)

DEFAULT = PROFILES["default"]


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
    assert units.threshold == pytest.approx(0.03, rel=0.05)
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
    with pytest.raises(
        TeacherError, match=r"--heatmap-activation sigmoid if the model outputs logi"
    ):
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


def test_all_checks_say_what_they_measured_and_weakness_can_be_accepted(dotted: Dotted) -> None:
    """A teacher that sees all at the same place is mirror-symmetric and in units: merely weak."""
    middle = np.tile(np.array([CELLS_HW[1] - 1, CELLS_HW[0] - 1]) / 2, (4, 1))
    heat = encode_keypoints(middle[None], CELLS_HW)
    weak = teacher_of(DotNetwork(change=lambda maps: np.repeat(heat, len(maps), 0)))
    said: list[str] = []
    with pytest.raises(TeacherError, match="--accept-weak-teacher"):
        check_teacher(weak, dotted.people, dotted.probe(weak), DEFAULT, say=said.append)
    check_teacher(weak, dotted.people, dotted.probe(weak), DEFAULT, accept_weak=True)
    assert [sentence.split(";")[0] for sentence in said] == [
        "probe: 24 people",
        "probe: PCK@0.2 against the annotations: median 0.00, mean 0.00 of 24 labelled people",
        "probe: mirror gap 0.00 cell on 96 maps, frame half-pixel implies 0.00",
    ]
