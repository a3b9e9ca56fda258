"""Ways to store heatmaps: how heat becomes stored values, and how these become bytes.

Only codecs of Zarr v3's core are packings here: ``transpose``, ``blosc``, ``zstd``, ``gzip``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numcodecs import get_codec
from numpy.typing import NDArray

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
    found += [Candidate(how, default.packing) for how in _quantisations()]
    found += [Candidate(default.quantisation, packing) for packing in _packings()]
    found += [Candidate(Quantisation("float16"), packing) for packing in _float16_packings()]
    unique: dict[tuple[Quantisation, Packing], Candidate] = {}
    for candidate in found:  # profiles come first, so that their names are kept
        unique.setdefault((candidate.quantisation, candidate.packing), candidate)
    return list(unique.values())


def _quantisations() -> list[Quantisation]:
    thresholds = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03)
    radii: Sequence[int | None] = (None, 4, 5, 6, 7)
    return [
        Quantisation("uint8", threshold, radius) for radius in radii for threshold in thresholds
    ]


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


def _float16_packings() -> list[Packing]:
    zstd = Packing(shuffle="shuffle")
    return [
        *(replace(zstd, level=level) for level in (1, 3, 5, 9)),
        *(replace(zstd, shuffle=name) for name in ("noshuffle", "bitshuffle")),
        replace(zstd, compressor="lz4hc", level=9),
    ]
