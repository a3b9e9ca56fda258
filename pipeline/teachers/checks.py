"""Checks that find wrong settings of a teacher before a store is written: frame, units, accuracy.

They are measured on the probe: the evaluation crops of a few people, spread over all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numcodecs import get_codec
from numpy.typing import NDArray

from pipeline.coco.people import People, spread_rows
from pipeline.errors import TeacherError
from pipeline.frames.crop_stream import requests_by_image, stream_crops
from pipeline.frames.geometry import HEATMAP_FRAMES, apply, crop_to_heatmap, invert, mirror_gap
from pipeline.frames.heatmaps import decode_heatmaps, mirror_heatmaps
from pipeline.settings import PROBE_PEOPLE
from pipeline.teachers.teacher import Teacher
from pipeline.wording import counted
from store_schemas.formats import HeatmapProfile, StoreProfile
from store_schemas.heatmap_codec import quantise_heatmaps
from store_schemas.keypoint_codec import KEYPOINT_BYTES


@dataclass(frozen=True)
class Probe:
    """The evaluation crops of a few people, and the teacher's heatmaps of them, unflipped."""

    rows: NDArray[np.int64]  # (B,)
    crops: NDArray[np.uint8]  # (B, H, W, 3)
    heatmaps: NDArray[np.float32]  # (B, K, Hh, Wh)
    image_to_crop: NDArray[np.float64]  # (B, 2, 3)


def take_probe(
    teacher: Teacher,
    people: People,
    image_folder: Path,
    image_to_crop: NDArray[np.float64],
    num_people: int = PROBE_PEOPLE,
) -> Probe:
    """Predict view 0 of people spread evenly over all; unreadable images are left out.

    image_to_crop: (N, V, 2, 3).

    Raises:
        TeacherError: no image of the probe can be read.
    """
    rows = spread_rows(people.num_instances, num_people)
    requests = requests_by_image(
        people, image_folder, people.image_index[rows], image_to_crop[rows, 0], rows
    )
    images = list(stream_crops(requests, teacher.input_size_hw))
    readable = [image for image in images if image.crops is not None]
    if not readable:
        raise TeacherError(
            f"of the probe's {counted(len(images), 'image')} none can be read: {images[0].error}"
        )
    crops = np.concatenate([image.crops for image in readable if image.crops is not None])
    kept = np.concatenate([image.request.rows for image in readable])
    return Probe(kept, crops, teacher.predict_heatmaps(crops), image_to_crop[kept, 0])


def measure_bytes_per_view(probe: Probe, threshold: float, profile: HeatmapProfile) -> float:
    """Encode the probe's heatmaps, and return the mean bytes of a view on disk."""
    stored, _ = quantise_heatmaps(probe.heatmaps, threshold, profile)
    blosc = get_codec({"id": "blosc", **profile.blosc_of_numcodecs()})
    compressed = float(np.mean([len(blosc.encode(view)) for view in stored]))
    index_and_checksum, outputs, checksum_and_status = 16 + 4, 16 * stored.shape[1], 4 + 1
    return compressed + index_and_checksum + outputs + checksum_and_status


LARGEST_GAP_ERROR = 0.3
"""Largest difference of the mirror gap from the one that the frame implies, in cells."""
PEAK_RANGE = (0.3, 1.5)
"""Range in which the 99th percentile of the peaks must lie."""
LEAST_PCK = 0.2
"""Smallest median PCK of a teacher."""
PCK_FRACTION = 0.2
"""Largest distance of a keypoint that counts as found, as a fraction of the longer box side."""
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


@dataclass(frozen=True)
class Accuracy:
    """Median over people of the share of keypoints within a fifth of the longer box side."""

    median_pck: float
    """NaN: no person of the probe has a labelled keypoint."""
    alternatives: dict[str, float]
    """Median under other settings of the teacher, by a description of the setting."""


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

    accept_weak: accept any accuracy.
    say: receives the measurements, a line for each check.

    Raises:
        TeacherError: a check fails; names the setting that would pass it, if any.
    """
    units = measure_units(probe, profile)
    say(
        f"probe: {counted(len(probe.rows), 'person')}; typical peak {units.typical_peak:.2f}, 99th "
        f"percentile {units.high_peak:.2f}; {_storage_in_words(probe, units, profile)}"
    )
    check_units(units)
    gap = measure_mirror_gap(teacher, probe, people.skeleton.flip_indices)
    measured = "not measurable" if gap.measured is None else f"{gap.measured:.2f} cell"
    say(
        f"probe: mirror gap {measured} on {counted(gap.num_maps, 'map')}, frame {teacher.frame} "
        f"implies {gap.expected:.2f}"
    )
    check_mirror_gap(teacher, gap)
    accuracy = measure_accuracy(teacher, probe, people)
    say(
        "probe: no labelled keypoint to measure the accuracy on"
        if np.isnan(accuracy.median_pck)
        else f"probe: median PCK@0.2 against the annotations {accuracy.median_pck:.2f}"
    )
    if not accept_weak:
        check_accuracy(accuracy, len(probe.rows))
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


def measure_accuracy(teacher: Teacher, probe: Probe, people: People) -> Accuracy:
    """Compare the keypoints with the annotations, under the teacher's and under other settings."""
    swap = list(people.skeleton.flip_indices)
    keypoints, _ = teacher.decode_heatmaps(probe.heatmaps)
    reversed_channels, _ = teacher.decode_heatmaps(teacher.predict_heatmaps(probe.crops[..., ::-1]))
    other_order = "BGR" if teacher.settings.channel_order == "rgb" else "RGB"
    alternatives = {
        "left and right swapped": keypoints[:, swap],
        f"channels in {other_order} order": reversed_channels,
    }
    cells, _ = decode_heatmaps(probe.heatmaps, teacher.settings.decoding)
    for frame in HEATMAP_FRAMES:
        if frame != teacher.frame:
            affine = crop_to_heatmap(frame, teacher.input_size_hw, teacher.heatmap_size_hw)
            alternatives[f"heatmap frame {frame}"] = apply(invert(affine), cells)
    return Accuracy(
        _median_pck(keypoints, probe, people),
        {name: _median_pck(points, probe, people) for name, points in alternatives.items()},
    )


def check_accuracy(accuracy: Accuracy, num_people: int) -> None:
    """Refuse a teacher that does not find the annotated keypoints, where there are any.

    Raises:
        TeacherError: the median is below 0.2; names the setting that would be better, if any.
    """
    if np.isnan(accuracy.median_pck) or accuracy.median_pck >= LEAST_PCK:
        return
    best = max(accuracy.alternatives, key=lambda name: accuracy.alternatives[name])
    better = accuracy.alternatives[best]
    advice = (
        f"with {best} it would be {better:.2f}: check the teacher's settings"
        if better > accuracy.median_pck + 0.05
        else "no other order of channels, sides or heatmap frame is better"
    )
    raise TeacherError(
        f"the teacher puts {accuracy.median_pck:.2f} of the keypoints within a fifth of the box "
        f"(median of {counted(num_people, 'person')}), expected at least {LEAST_PCK}; {advice}; "
        "--accept-weak-teacher continues all the same"
    )


def _median_pck(keypoints: NDArray[np.float64], probe: Probe, people: People) -> float:
    """Return the median of PCK@0.2 of the longer box side over people with labelled keypoints.

    It is NaN if no person has any.
    keypoints: (B, K, 2), crop pixels of view 0.
    """
    boxes = people.bbox_xywh[probe.rows]
    found = apply(invert(probe.image_to_crop), keypoints)
    truth = people.keypoints[probe.rows]
    is_labelled = truth[..., 2] > 0
    distance = np.linalg.norm(found - truth[..., :2], axis=-1)
    side = boxes[:, 2:].max(axis=1, keepdims=True)
    hits = (distance <= PCK_FRACTION * side) & is_labelled
    counts = is_labelled.sum(axis=1)
    shares = hits.sum(axis=1)[counts > 0] / counts[counts > 0]
    return float(np.median(shares)) if shares.size else float("nan")
