"""Laws of the codec study: its figures are those of really storing the heatmaps."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.benchmarks.codec_study import (
    RAW_FLOAT16,
    Candidate,
    CandidateFigures,
    CodecStudy,
    Packing,
    Quantisation,
    profile_candidates,
    search_space,
    study_codecs,
)
from pipeline.benchmarks.fidelity import MapBatch, StudiedPeople
from pipeline.coco.people import people_of_rows, spread_rows
from pipeline.frames.geometry import apply, box_to_crop, compose, crop_to_heatmap
from pipeline.frames.heatmaps import decode_heatmaps, encode_keypoints
from pipeline.settings import PADDING
from store_schemas.formats import PROFILES
from tests.pipeline.conftest import PeopleMaker

INPUT_SIZE_HW, CELLS_HW = (128, 96), (32, 24)
NUM_VIEWS = 2
CANDIDATES = [
    Candidate(Quantisation("uint8", 0.02), Packing()),
    Candidate(Quantisation("uint8", 0.02), Packing(compressor="lz4hc", level=9)),
    Candidate(Quantisation("uint8", 0.02), Packing(order=(1, 2, 0))),
    Candidate(Quantisation("uint8", 0.05, exact_radius=None), Packing("zstd", 3)),
    Candidate(Quantisation("float16"), Packing(shuffle="shuffle")),
]


@pytest.fixture(scope="module")
def studied(make_people: PeopleMaker) -> StudiedPeople:
    people = make_people((0, 1, 2, 3), num_images=4)
    plain = box_to_crop(people.bbox_xywh, INPUT_SIZE_HW)
    views = np.stack([plain] * NUM_VIEWS, axis=1)
    to_heatmap = crop_to_heatmap("half-pixel", INPUT_SIZE_HW, CELLS_HW)
    return StudiedPeople(people, views, to_heatmap, INPUT_SIZE_HW, PADDING)


@pytest.fixture(scope="module")
def heatmaps(studied: StudiedPeople) -> NDArray[np.float32]:
    """Gaussians at the true points on a floor of noise, (P, V, K, Hh, Wh)."""
    to_heatmap = compose(studied.crop_to_heatmap, studied.image_to_crop)
    points = np.nan_to_num(studied.people.keypoints[:, None, :, :2], nan=350.0)
    heat = encode_keypoints(apply(to_heatmap, points), CELLS_HW)
    noise = np.random.default_rng(0).normal(0, 0.01, heat.shape)
    return (0.8 * heat + noise).astype(np.float32)


@pytest.fixture(scope="module")
def study(studied: StudiedPeople, heatmaps: NDArray[np.float32]) -> CodecStudy:
    return study_codecs(batches_of(heatmaps), studied, CANDIDATES, typical_peak=0.8)


def batches_of(heatmaps: NDArray[np.float32], size: int = 3) -> list[MapBatch]:
    places = np.argwhere(np.ones(heatmaps.shape[:2], np.bool_))
    flat = heatmaps.reshape(-1, *heatmaps.shape[2:])
    return [MapBatch(places[i : i + size], flat[i : i + size]) for i in range(0, len(flat), size)]


def figures_of(study: CodecStudy, candidate: Candidate) -> CandidateFigures:
    return next(figures for figures in study.figures if figures.candidate == candidate)


def test_every_candidate_is_measured_beside_raw_float16(study: CodecStudy) -> None:
    assert [figures.candidate for figures in study.figures] == [RAW_FLOAT16, *CANDIDATES]
    assert study.raw_bytes == 5 * 32 * 24 * 2
    assert (study.num_people, study.num_views) == (4, NUM_VIEWS)


def test_bytes_are_those_of_the_packed_views(
    study: CodecStudy, heatmaps: NDArray[np.float32]
) -> None:
    candidate = CANDIDATES[0]
    flat = heatmaps.reshape(-1, *heatmaps.shape[2:])
    stored, _ = candidate.quantisation.quantise(flat, 0.8)
    codec = candidate.packing.open()
    expected = np.mean([len(codec.encode(view)) for view in stored])
    found = figures_of(study, candidate)
    assert found.heatmap_bytes == expected
    assert found.bytes_per_view - found.heatmap_bytes == pytest.approx(
        figures_of(study, RAW_FLOAT16).bytes_per_view - study.raw_bytes
    )


def test_shifts_are_between_the_points_of_live_and_stored_maps(
    study: CodecStudy, heatmaps: NDArray[np.float32], studied: StudiedPeople
) -> None:
    candidate = CANDIDATES[3]
    flat = heatmaps.reshape(-1, *heatmaps.shape[2:])
    stored, scale = candidate.quantisation.quantise(flat, 0.8)
    restored = stored.astype(np.float32) * scale[..., None, None]
    shifts = np.linalg.norm(decode_heatmaps(restored)[0] - decode_heatmaps(flat)[0], axis=-1)
    found = figures_of(study, candidate).fidelity
    assert found.all_keypoints.largest == pytest.approx(shifts.max())
    assert found.all_keypoints.mean == pytest.approx(shifts.mean())
    labelled = shifts.reshape(4, NUM_VIEWS, -1)[:, 0][studied.people.is_labelled]
    assert found.labelled_keypoints is not None
    assert found.labelled_keypoints.largest == pytest.approx(labelled.max())
    assert found.largest_error == pytest.approx(np.abs(restored - np.maximum(flat, 0)).max())


def test_float16_changes_neither_places_nor_ap(study: CodecStudy) -> None:
    found = figures_of(study, CANDIDATES[4]).fidelity
    assert found.largest_error < 2**-11
    assert found.all_keypoints.largest < 0.01
    assert found.poses.live_ap == found.poses.stored_ap == pytest.approx(1.0)


def test_a_quantisation_that_moves_keypoints_is_seen_in_oks_and_ap(
    studied: StudiedPeople, heatmaps: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study is not blind: maps stored upside down cost nearly all AP."""

    def upside_down(
        _: Quantisation, maps: NDArray[np.float32], typical_peak: float
    ) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        return maps[..., ::-1, :].astype(np.float16), np.ones(maps.shape[:2], np.float32)

    monkeypatch.setattr(Quantisation, "quantise", upside_down)
    study = study_codecs(batches_of(heatmaps), studied, CANDIDATES[:1], typical_peak=0.8)
    poses = figures_of(study, CANDIDATES[0]).fidelity.poses
    assert poses.mean_oks_change > 0.3
    assert poses.live_ap == pytest.approx(1.0)
    assert poses.stored_ap is not None
    assert poses.stored_ap < 0.5


def test_a_missing_view_is_refused(studied: StudiedPeople, heatmaps: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="expected the maps of every view, 2 are missing"):
        study_codecs(batches_of(heatmaps)[:-1], studied, CANDIDATES[:1], typical_peak=0.8)


def test_the_search_space_holds_every_profile_once_and_no_candidate_twice() -> None:
    space = search_space()
    assert [c.profile for c in space if c.profile] == list(PROFILES)
    assert space[: len(PROFILES)] == profile_candidates()
    keys = [(c.quantisation, c.packing) for c in space]
    assert len(set(keys)) == len(keys)
    assert len({c.name for c in space}) == len(space)


def test_chosen_people_keep_their_images_and_truth(studied: StudiedPeople) -> None:
    people = studied.people
    some = people_of_rows(people, np.array([1, 3]))
    assert some.instance_id.tolist() == people.instance_id[[1, 3]].tolist()
    assert some.image_id[some.image_index].tolist() == [20, 40]
    assert some.image_name == ("1.jpg", "3.jpg")
    assert len(replace(some).ignored.area) == 0


@pytest.mark.parametrize(("people", "wanted", "rows"), [(9, 3, [0, 4, 8]), (2, 5, [0, 1])])
def test_rows_are_spread_over_all_people(people: int, wanted: int, rows: list[int]) -> None:
    assert spread_rows(people, wanted).tolist() == rows
