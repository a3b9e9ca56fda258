"""Ways to store heatmaps: size, speed and fidelity over the same maps, interleaved by batch.

A way is a quantisation, by which heat becomes stored values, and a packing, by which these become
bytes. Only codecs of Zarr v3's core are packings: ``transpose``, ``blosc``, ``zstd``, ``gzip``.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numcodecs import blosc, get_codec
from numpy.typing import NDArray

from pipeline.benchmarks.fidelity import (
    DecodedPoints,
    Fidelity,
    FidelityMeter,
    MapBatch,
    StudiedPeople,
    measure_poses,
)
from store_schemas.formats import PROFILES, SHUFFLES, HeatmapProfile
from store_schemas.heatmap_levels import DARK_RADIUS, levels_of_heat

Codec = Any  # numcodecs ships no types


@dataclass(frozen=True)
class Quantisation:
    """Rule by which heat becomes stored values."""

    dtype: str = "uint8"
    relative_threshold: float = 0.0
    """Threshold in parts of the teacher's typical peak; unused for float16."""
    exact_radius: int | None = DARK_RADIUS
    """Cells around the peak within which levels are exact; None: one step everywhere, and heat
    below the threshold is 0."""

    def quantise(
        self, heatmaps: NDArray[np.float32], typical_peak: float
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Return stored values (B, K, Hh, Wh) and scale (B, K) of (B, K, Hh, Wh) heatmaps."""
        threshold = self.threshold(typical_peak)
        if self.dtype == "float16":
            return heatmaps.astype(np.float16), np.ones(heatmaps.shape[:2], np.float32)
        if self.exact_radius is None:
            return plain_levels(heatmaps, threshold)
        return levels_of_heat(heatmaps, threshold, self.exact_radius)

    def threshold(self, typical_peak: float) -> float:
        """Return the threshold in heat, rounded as a store records it."""
        return float(f"{self.relative_threshold * typical_peak:.3g}")

    def __str__(self) -> str:
        if self.dtype == "float16":
            return "float16"
        near = "" if self.exact_radius is None else f", exact {self.exact_radius}"
        return f"{self.relative_threshold:g}{near}"


@dataclass(frozen=True)
class Packing:
    """Codec by which the stored values of one view become bytes."""

    codec: str = "blosc"
    """Name of the codec: blosc, zstd, gzip or none."""
    level: int = 5
    compressor: str = "zstd"
    """Compressor inside Blosc."""
    shuffle: str = "noshuffle"
    block_bytes: int = 0
    """Size of Blosc's blocks; 0: Blosc's own choice."""
    order: tuple[int, int, int] = (0, 1, 2)
    """Order of the axes K, Hh, Wh: the configuration of the codec ``transpose``."""

    def open(self) -> Codec:
        """Return the numcodecs codec; one per thread."""
        if self.codec == "blosc":
            return get_codec(
                {
                    "id": "blosc",
                    "cname": self.compressor,
                    "clevel": self.level,
                    "shuffle": SHUFFLES.index(self.shuffle),
                    "blocksize": self.block_bytes,
                }
            )
        return get_codec({"id": self.codec, "level": self.level})

    def __str__(self) -> str:
        if self.codec == "none":
            return "raw"
        words = [self.codec, f"{self.level}"]
        if self.codec == "blosc":
            words = [f"blosc {self.compressor} {self.level}"]
            words += [] if self.shuffle == "noshuffle" else [self.shuffle]
            words += [f"blocks {self.block_bytes}"] if self.block_bytes else []
        if self.order != (0, 1, 2):
            words.append("transpose " + "".join("KHW"[axis] for axis in self.order))
        return " ".join(words)


@dataclass(frozen=True)
class Candidate:
    """One way to store heatmaps."""

    quantisation: Quantisation
    packing: Packing
    profile: str | None = None
    """Name of the profile that stores in this way; None: no profile does."""

    @property
    def name(self) -> str:
        """A name that no other candidate of a study has."""
        return self.profile or f"{self.quantisation}; {self.packing}"


RAW_FLOAT16 = Candidate(Quantisation("float16"), Packing("none"))
"""Candidate that every size is compared with."""


def plain_levels(
    heatmaps: NDArray[np.float32], threshold: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantise with one step everywhere and heat below the threshold as 0, the obvious rule."""
    heat = np.where(heatmaps < threshold, np.float32(0), np.maximum(heatmaps, np.float32(0)))
    scale = heat.max(axis=(-2, -1)) / np.float32(255)
    divisor = np.where(scale > 0, scale, np.float32(1))[..., None, None]
    return np.rint(heat / divisor).astype(np.uint8), scale


def profile_candidate(profile: HeatmapProfile) -> Candidate:
    """Return a profile of the store as a candidate."""
    return Candidate(
        Quantisation(profile.dtype, profile.relative_threshold, profile.exact_radius),
        Packing("blosc", profile.level, profile.compressor, profile.shuffle, profile.block_bytes),
        profile.name,
    )


def profile_candidates() -> list[Candidate]:
    """Return the profiles of the store, in their order."""
    return [profile_candidate(profile) for profile in PROFILES.values()]


def search_space() -> list[Candidate]:
    """Return every candidate that the profiles were chosen among, and the profiles."""
    default = profile_candidate(PROFILES["default"])
    found = profile_candidates()
    for radius in (None, 4, 5, 6, 7):
        for threshold in (0.005, 0.01, 0.015, 0.02, 0.025, 0.03):
            found.append(Candidate(Quantisation("uint8", threshold, radius), default.packing))
    found += [Candidate(default.quantisation, packing) for packing in _packings()]
    plain = Packing(shuffle="shuffle")
    float16_packings = (
        *(replace(plain, level=level) for level in (1, 3, 5, 9)),
        *(replace(plain, shuffle=name) for name in ("noshuffle", "bitshuffle")),
        replace(plain, compressor="lz4hc", level=9),
    )
    found += [Candidate(Quantisation("float16"), packing) for packing in float16_packings]
    unique: dict[tuple[Quantisation, Packing], Candidate] = {}
    for candidate in found:  # profiles come first, so that their names are kept
        unique.setdefault((candidate.quantisation, candidate.packing), candidate)
    return list(unique.values())


def _packings() -> list[Packing]:
    zstd, lz4hc = Packing(), Packing(compressor="lz4hc", level=9)
    return [
        *(replace(zstd, level=level) for level in (1, 3, 5, 7, 9)),
        *(replace(zstd, compressor="lz4", level=level) for level in (1, 5, 9)),
        *(replace(lz4hc, level=level) for level in (1, 3, 5, 7, 9)),
        replace(lz4hc, compressor="blosclz"),
        *(replace(one, shuffle=name) for one in (zstd, lz4hc) for name in SHUFFLES[1:]),
        *(replace(one, block_bytes=2**k) for one in (zstd, lz4hc) for k in (12, 13, 14, 15, 16)),
        *(replace(zstd, level=level, block_bytes=2**16) for level in (1, 3)),
        *(replace(zstd, order=order) for order in ((1, 2, 0), (0, 2, 1))),
        *(Packing("zstd", level) for level in (1, 3, 5, 9, 15, 19, 22)),
        *(Packing("gzip", level) for level in (1, 6, 9)),
    ]


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
