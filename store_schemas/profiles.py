"""Profiles: data type, threshold and Blosc settings of stored heatmaps, under a name.

A store records the settings themselves, so a profile may change between versions of this program
without any old store being refused. Only core codecs of Zarr v3 are used.
"""

from dataclasses import dataclass
from typing import Any, Self

from store_schemas.errors import SchemaError
from store_schemas.metadata import take_int

DTYPES = ("uint8", "float16")
COMPRESSORS = ("zstd", "lz4", "lz4hc", "blosclz", "zlib")
SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")


@dataclass(frozen=True)
class HeatmapProfile:
    """One way to store heatmaps."""

    name: str
    dtype: str
    """uint8: levels of a scale per map; float16: heat itself, negative heat included, scale 1."""
    relative_threshold: float
    """Largest error far from a map's peak, as a fraction of the teacher's typical peak; float16
    and a profile that was read from a store: 0."""
    exact_radius: int
    """Cells around a map's peak where the threshold does not apply; float16: 0, as it has none."""
    compressor: str
    level: int
    shuffle: str = "noshuffle"
    block_bytes: int = 0
    """Size of a Blosc block; 0: Blosc chooses it."""

    @property
    def bytes_per_cell(self) -> int:
        return 2 if self.dtype == "float16" else 1

    def blosc(self) -> dict[str, Any]:
        """Return the configuration of the Zarr codec ``blosc``."""
        return {
            "typesize": self.bytes_per_cell,
            "cname": self.compressor,
            "clevel": self.level,
            "shuffle": self.shuffle,
            "blocksize": self.block_bytes,
        }

    def blosc_of_numcodecs(self) -> dict[str, Any]:
        """Return the same settings for ``numcodecs.Blosc``."""
        settings = self.blosc()
        del settings["typesize"]  # numcodecs takes it from the array
        return {**settings, "shuffle": SHUFFLES.index(self.shuffle)}

    def to_json(self) -> dict[str, Any]:
        """Return the settings as an identity's section ``codec`` keeps them, threshold excluded."""
        return {
            "profile": self.name,
            "dtype": self.dtype,
            "exact_radius": self.exact_radius,
            "blosc": self.blosc(),
        }

    @classmethod
    def from_json(cls, codec: dict[str, Any]) -> Self:
        """Return the settings of an identity's section ``codec``, each in bounds.

        Raises:
            SchemaError: a setting is missing, unknown or out of bounds.
        """
        where = "identity.codec"
        name, dtype, blosc = codec.get("profile"), codec.get("dtype"), codec.get("blosc")
        if not isinstance(name, str) or dtype not in DTYPES or not isinstance(blosc, dict):
            raise SchemaError(
                f"{where}: 'profile', 'dtype' ({' or '.join(DTYPES)}) and 'blosc' must be given, "
                f"got {name!r}, {dtype!r} and {blosc!r}"
            )
        profile = cls(
            name=name,
            dtype=str(dtype),
            relative_threshold=0.0,
            exact_radius=take_int(codec, "exact_radius", where),
            compressor=str(blosc.get("cname")),
            level=take_int(blosc, "clevel", where),
            shuffle=str(blosc.get("shuffle")),
            block_bytes=take_int(blosc, "blocksize", where),
        )
        is_known = profile.compressor in COMPRESSORS and profile.shuffle in SHUFFLES
        in_bounds = profile.level <= 9 and profile.block_bytes <= 1 << 30
        if not is_known or not in_bounds or profile.blosc() != blosc:
            raise SchemaError(
                f"{where}: 'blosc' must be settings of Zarr's blosc codec, got {blosc}"
            )
        return profile


DEFAULT_PROFILE = "default"
PROFILES = {
    profile.name: profile
    for profile in (
        HeatmapProfile("default", "uint8", 0.03, 7, "lz4hc", 5),
        HeatmapProfile("small", "uint8", 0.025, 5, "zstd", 5),
        HeatmapProfile("fast", "uint8", 0.03, 7, "lz4hc", 9),
        HeatmapProfile("lossless-float16", "float16", 0.0, 0, "zstd", 3, "shuffle"),
    )
}


def profile_named(name: str) -> HeatmapProfile:
    """Return a shipped profile, or raise SchemaError."""
    if name not in PROFILES:
        raise SchemaError(f"the profile must be one of {', '.join(PROFILES)}, got {name!r}")
    return PROFILES[name]
