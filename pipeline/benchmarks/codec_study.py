"""Size, speed and fidelity of all candidates over the same maps, interleaved batch by batch."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from pipeline.benchmarks.codec_candidates import RAW_FLOAT16, Candidate, Packing, Quantisation
from pipeline.benchmarks.fidelity import (
    DecodedPoints,
    Fidelity,
    FidelityMeter,
    MapBatch,
    StudiedPeople,
    measure_poses,
)

_INDEX_ENTRY, _CHECKSUM, _STATUS, _FLOAT32 = 16, 4, 1, 4
_AFFINE_AND_MIRRORED = 6 * 8 + 1
_PERSON = 8 + 8 + 4 * 8 + 8  # id, image, box, area
_KEYPOINT = 3 * _FLOAT32 + 1
_IMAGE = 8 + 2 * 8 + 32 + 24  # id, size, digest, name; one person an image


@dataclass(frozen=True)
class CandidateFigures:
    """Costs of one candidate, and what it changes."""

    candidate: Candidate
    heatmap_bytes: float
    """Bytes of a view's packed heatmaps."""
    bytes_per_view: float
    """Bytes of everything that a store keeps, shared among the views."""
    quantised_per_second: float
    """Views per second of CPU time, one core; so are the next two."""
    packed_per_second: float
    unpacked_per_second: float
    fidelity: Fidelity

    @property
    def encoded_per_second(self) -> float:
        """Views per second of CPU time that are both quantised and packed."""
        return 1 / (1 / self.quantised_per_second + 1 / self.packed_per_second)


@dataclass(frozen=True)
class CodecStudy:
    """Figures of a study in the order of the candidates; the first is raw float16."""

    figures: list[CandidateFigures]
    typical_peak: float
    num_people: int
    num_views: int
    """Views of each person, view 0 included."""

    @property
    def raw_bytes(self) -> float:
        return self.figures[0].heatmap_bytes


def study_codecs(
    batches: Iterable[MapBatch],
    studied: StudiedPeople,
    candidates: Sequence[Candidate],
    typical_peak: float,
    on_views: Callable[[int], None] = lambda _: None,
) -> CodecStudy:
    """Store the same live maps in every way, and compare the candidates.

    batches: every view of the studied people, once.
    typical_peak: the heat that thresholds are relative to.
    on_views: called with the number of views that were added.

    Raises:
        ValueError: views are missing from the batches.
    """
    candidates = [RAW_FLOAT16, *(c for c in candidates if c != RAW_FLOAT16)]
    live = DecodedPoints.empty(studied)
    ways = {how: _Way.empty(studied) for how in dict.fromkeys(c.quantisation for c in candidates)}
    packings = {c: _PackingMeter(c.packing) for c in candidates}
    used_threads, blosc.use_threads = blosc.use_threads, False
    try:
        for batch in batches:
            live.add(batch.places, batch.heatmaps)
            for quantisation, way in ways.items():
                stored = way.add(quantisation, batch, typical_peak)
                for candidate, meter in packings.items():
                    if candidate.quantisation == quantisation:
                        meter.add(stored)
            on_views(len(batch.places))
    finally:
        blosc.use_threads = used_threads
    live.require_every_view()
    truth = measure_poses(studied, live)
    fidelities = {how: way.meter.fidelity(studied, live, truth) for how, way in ways.items()}
    shared = bytes_beside_heatmaps(live.points.shape[2], studied.num_views)
    figures = [
        packings[c].figures(c, ways[c.quantisation], fidelities[c.quantisation], shared)
        for c in candidates
    ]
    return CodecStudy(figures, typical_peak, studied.people.num_instances, studied.num_views)


def bytes_beside_heatmaps(num_keypoints: int, num_views: int) -> float:
    """Return the bytes of a view beside its packed heatmaps, its share of the person's included.

    Not counted is what does not grow with the people: the JSON, and one manifest row in a shard.
    """
    outputs = 4 * _FLOAT32 * num_keypoints
    of_view = _INDEX_ENTRY + 2 * _CHECKSUM + _STATUS + outputs + _AFFINE_AND_MIRRORED
    return of_view + (_PERSON + _KEYPOINT * num_keypoints + _IMAGE) / num_views


@dataclass
class _Way:
    """One quantisation, its time and its fidelity."""

    meter: FidelityMeter
    seconds: float = 0.0
    num_views: int = 0

    @classmethod
    def empty(cls, studied: StudiedPeople) -> "_Way":
        return cls(FidelityMeter(DecodedPoints.empty(studied)))

    def add(self, how: Quantisation, batch: MapBatch, typical_peak: float) -> NDArray[Any]:
        """Quantise a batch and return the stored values, (B, K, Hh, Wh)."""
        started = time.thread_time()
        stored, scale = how.quantise(batch.heatmaps, typical_peak)
        self.seconds += time.thread_time() - started
        self.num_views += len(stored)
        self.meter.add(batch.places, batch.heatmaps, stored, scale)
        return stored


class _PackingMeter:
    """One packing, its bytes and times; every view is unpacked again and compared."""

    def __init__(self, packing: Packing) -> None:
        self._order = packing.order
        self._back = tuple(int(axis) for axis in np.argsort(packing.order))
        self._codec = None if packing.codec == "none" else packing.open()
        self._bytes, self._views = 0, 0
        self._pack_seconds, self._unpack_seconds = 0.0, 0.0

    def add(self, stored: NDArray[Any]) -> None:
        """Pack and unpack each view of (B, K, Hh, Wh)."""
        started = time.thread_time()
        packed = [self._pack(view) for view in stored]
        between = time.thread_time()
        out = np.empty_like(stored)
        for view, data in zip(out, packed, strict=True):
            self._unpack(data, view)
        self._unpack_seconds += time.thread_time() - between
        self._pack_seconds += between - started
        self._bytes += sum(map(len, packed))
        self._views += len(packed)
        if not np.array_equal(out, stored):
            raise ValueError(
                "a packing must be lossless, but unpacked values differ from those packed"
            )

    def figures(
        self, candidate: Candidate, way: _Way, fidelity: Fidelity, shared_bytes: float
    ) -> CandidateFigures:
        return CandidateFigures(
            candidate=candidate,
            heatmap_bytes=self._bytes / self._views,
            bytes_per_view=self._bytes / self._views + shared_bytes,
            quantised_per_second=way.num_views / max(way.seconds, 1e-9),
            packed_per_second=self._views / max(self._pack_seconds, 1e-9),
            unpacked_per_second=self._views / max(self._unpack_seconds, 1e-9),
            fidelity=fidelity,
        )

    def _pack(self, view: NDArray[Any]) -> bytes:
        ordered = np.ascontiguousarray(view.transpose(self._order))
        return ordered.tobytes() if self._codec is None else bytes(self._codec.encode(ordered))

    def _unpack(self, data: bytes, out: NDArray[Any]) -> None:
        if self._codec is None:
            out[...] = np.frombuffer(data, out.dtype).reshape(out.shape)
        elif self._back == (0, 1, 2):
            self._codec.decode(data, out)
        else:
            ordered = np.empty([out.shape[axis] for axis in self._order], out.dtype)
            self._codec.decode(data, ordered)
            out[...] = ordered.transpose(self._back)
