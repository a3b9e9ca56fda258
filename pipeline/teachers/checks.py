"""Checks that find wrong settings of a teacher before a store is written: units, frame, accuracy.

They are measured on the probe: the evaluation crops of a few people, spread over all of them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.coco.people import People
from pipeline.errors import TeacherError
from pipeline.frames.geometry import HEATMAP_FRAMES, crop_to_heatmap, mirror_gap
from pipeline.frames.heatmaps import decode_heatmaps, mirror_heatmaps
from pipeline.teachers.accuracy import check_accuracy, check_settings, measure_accuracy
from pipeline.teachers.probe import Probe, measure_bytes_per_view
from pipeline.teachers.teacher import Teacher
from pipeline.wording import counted
from store_schemas.formats import HeatmapProfile, StoreProfile
from store_schemas.keypoint_codec import KEYPOINT_BYTES

LARGEST_GAP_ERROR = 0.3
"""Largest difference of the mirror gap from the one that the frame implies, in cells."""
PEAK_RANGE = (0.3, 1.5)
"""Range in which the 99th percentile of the peaks must lie."""
_LEAST_MAPS = 20
"""Smallest number of confident maps on which the mirror gap is measured."""


@dataclass(frozen=True)
class Units:
    """Heights of the teacher's peaks, and the errors with which a store would keep its heatmaps."""

    typical_peak: float
    """Median over people of the highest peak."""
    high_peak: float
    """99th percentile of all peaks."""
    threshold: float
    """Largest error of stored heat far from a map's peak."""
    clamped_rms: float
    """Root mean square of the negative heat that the store sets to 0."""


@dataclass(frozen=True)
class MirrorGap:
    """Offset between the peaks of crops and of mirrored crops; see ``geometry.mirror_gap``."""

    measured: float | None
    """Median over confident maps in cells; None: too few of them."""
    expected: float
    """Mirror gap in cells that the heatmap frame implies."""
    num_maps: int


def check_teacher(
    teacher: Teacher,
    people: People,
    probe: Probe,
    profile: StoreProfile,
    *,
    accept_weak: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Units:
    """Refuse a teacher whose units, frame or accuracy on the probe show a wrong setting.

    accept_weak: accept any accuracy, and settings that others would clearly improve on.
    say: receives the measurements, a line for each check.

    Raises:
        TeacherError: a check fails; names the setting that would pass it, if any.
    """
    began = time.perf_counter()
    units = measure_units(probe, profile)
    say(
        f"probe: {counted(len(probe.rows), 'person')}; typical peak {units.typical_peak:.2f}, 99th "
        f"percentile {units.high_peak:.2f}; {_storage_in_words(probe, units, profile)}"
    )
    # Before units and frame, which a wrong order of channels or scale of pixels spoils too.
    accuracy = measure_accuracy(teacher, probe, people)
    for line in accuracy.as_lines():
        say(f"probe: {line}")
    if not accept_weak:
        check_settings(accuracy)
    check_units(units)
    gap = measure_mirror_gap(teacher, probe, people.skeleton.flip_indices)
    measured = "not measurable" if gap.measured is None else f"{gap.measured:.2f} cell"
    say(
        f"probe: mirror gap {measured} on {counted(gap.num_maps, 'map')}, frame {teacher.frame} "
        f"implies {gap.expected:.2f}"
    )
    check_mirror_gap(teacher, gap)
    if not accept_weak:
        check_accuracy(accuracy)
    say(f"probe: took {probe.seconds + time.perf_counter() - began:.1f} s")
    return units


def _storage_in_words(probe: Probe, units: Units, profile: StoreProfile) -> str:
    if isinstance(profile, HeatmapProfile):
        num_bytes = measure_bytes_per_view(probe, units.threshold, profile)
        return f"heat is stored to {units.threshold:g}; about {num_bytes:.0f} bytes a view"
    num_bytes = KEYPOINT_BYTES * probe.heatmaps.shape[1] + 1
    return f"keypoints are stored to {profile.step / 2:g} crop pixels; {num_bytes} bytes a view"


def measure_units(probe: Probe, profile: StoreProfile) -> Units:
    """Measure the peaks, and the negative heat that the store sets to 0.

    Raises:
        TeacherError: a map is not finite, for example because of a wrong preprocessing.
    """
    if not np.isfinite(probe.heatmaps).all():
        raise TeacherError(
            "the teacher's heatmaps hold values that are not finite; check its preprocessing "
            "(--mean, --std, --pixel-scale) and its weights"
        )
    peaks = probe.heatmaps.max(axis=(2, 3))
    typical = float(np.median(peaks.max(axis=1)))
    relative_threshold = 0.0
    if isinstance(profile, HeatmapProfile):
        relative_threshold = profile.relative_threshold
    threshold = float(f"{max(relative_threshold * typical, 0.0):.3g}")
    clamps = profile.dtype == "uint8"
    clamped = np.minimum(probe.heatmaps, 0) if clamps else np.zeros(1, np.float32)
    return Units(
        typical,
        float(np.percentile(peaks, 99)),
        threshold,
        float(np.sqrt(np.square(clamped).mean())),
    )


def check_units(units: Units) -> None:
    """Refuse maps whose heat is not that of Gaussians of height 1.

    Raises:
        TeacherError: the peaks are too low or too high, or much heat is negative.
    """
    low, high = PEAK_RANGE
    if not low <= units.high_peak <= high:
        raise TeacherError(
            f"99 % of the teacher's peaks lie below {units.high_peak:.3g}, expected {low} to "
            f"{high}: targets are compared with Gaussians of height 1; set --heatmap-gain, or "
            "--heatmap-activation sigmoid if the model outputs logits"
        )
    # The codec may change small heat by up to the threshold, so the clamp may cost as much: the
    # floor of a network trained with a squared error is as often negative as positive.
    if units.clamped_rms > max(units.threshold, 1e-6):
        raise TeacherError(
            f"the teacher's negative heat (rms {units.clamped_rms:.2g}), which the store sets to "
            f"0, exceeds the codec's error ({units.threshold:.2g}); set --heatmap-activation "
            "sigmoid if the model outputs logits"
        )


def measure_mirror_gap(teacher: Teacher, probe: Probe, flip_indices: tuple[int, ...]) -> MirrorGap:
    """Measure the mirror gap of a teacher's heatmaps, which needs no labels."""
    mirrored = teacher.predict_heatmaps(probe.crops[:, :, ::-1])
    points, peaks = decode_heatmaps(probe.heatmaps)
    back_points, back_peaks = decode_heatmaps(mirror_heatmaps(mirrored, flip_indices))
    offsets = points - back_points
    # Peaks several cells apart belong to different body parts, whatever the frame.
    confident = np.minimum(peaks, back_peaks) > 0.5 * float(np.median(peaks.max(axis=1)))
    confident &= np.abs(offsets).max(axis=-1) < 3
    count = int(confident.sum())
    measured = float(np.median(offsets[confident, 0])) if count >= _LEAST_MAPS else None
    return MirrorGap(measured, teacher.expected_mirror_gap, count)


def check_mirror_gap(teacher: Teacher, gap: MirrorGap) -> None:
    """Refuse a heatmap frame that the measured mirror gap contradicts.

    Raises:
        TeacherError: the gap differs from the frame's by over 0.3 cell; names the frames that fit.
    """
    if gap.measured is None or abs(gap.measured - gap.expected) <= LARGEST_GAP_ERROR:
        return
    width, columns = teacher.input_size_hw[1], teacher.heatmap_size_hw[1]
    fitting = [
        frame
        for frame in HEATMAP_FRAMES
        if abs(
            mirror_gap(
                crop_to_heatmap(frame, teacher.input_size_hw, teacher.heatmap_size_hw),
                width,
                columns,
            )
            - gap.measured
        )
        <= LARGEST_GAP_ERROR
    ]
    raise TeacherError(
        f"heatmap frame {teacher.frame} puts mirrored maps {gap.expected:.2f} cell apart, but "
        f"{gap.measured:.2f} was measured on {counted(gap.num_maps, 'map')}; "
        + (f"use --heatmap-frame {' or '.join(fitting)}" if fitting else "no known frame fits")
    )
