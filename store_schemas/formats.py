"""Formats of a teacher's arrays: heatmaps by named profiles, and the optional crops and tokens.

A store records the settings of a profile themselves, so it may change between versions of this
program without any old store being refused. Only core codecs of Zarr v3 are used.

The crops are JPEG files, each followed by zeros to one fixed length, which Blosc compresses to
almost nothing; ``crop_bytes`` holds the length of the file. Tokens are int8 with a scale each
(``token_codec``), or float16. As with heatmaps one view is one inner chunk, and a ``..._crc32c``
array binds every chunk to its row.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

from store_schemas.choices import (
    MAX_QUALITY,
    MAX_WIDE_CROP_SIDE,
    SUBSAMPLINGS,
    TOKEN_KINDS,
)
from store_schemas.errors import SchemaError
from store_schemas.keypoint_codec import KeypointProfile
from store_schemas.metadata import take_int, take_object, take_size_hw

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


StoreProfile = HeatmapProfile | KeypointProfile
"""Storage of what a teacher predicts: heatmaps, or keypoints and confidences alone."""


def profile_named(name: str, input_size_hw: tuple[int, int]) -> StoreProfile:
    """Return a shipped profile for crops of (H, W), or raise SchemaError."""
    if name == KeypointProfile.name:
        return KeypointProfile.of_crops(input_size_hw)
    if name not in PROFILES:
        known = ", ".join([*PROFILES, KeypointProfile.name])
        raise SchemaError(f"the profile must be one of {known}, got {name!r}")
    return PROFILES[name]


def profile_from_json(codec: dict[str, Any]) -> StoreProfile:
    """Return the profile of an identity's section ``codec``, or raise SchemaError."""
    if codec.get("profile") == KeypointProfile.name:
        return KeypointProfile.from_json(codec)
    return HeatmapProfile.from_json(codec)


CROP_BLOSC: dict[str, Any] = {
    "typesize": 1,
    "cname": "lz4",
    "clevel": 1,
    "shuffle": "noshuffle",
    "blocksize": 0,
}
"""Compresses the zeros and copies the JPEG, which cannot be compressed further."""
CHECKSUMS = {
    "crops": "crop_crc32c",
    "keypoint_tokens": "keypoint_token_crc32c",
    "visual_tokens": "visual_token_crc32c",
}
"""Name of the array of chunk checksums, by sharded array."""
TOKEN_SCALES = {
    "keypoint_tokens": "keypoint_token_scale",
    "visual_tokens": "visual_token_scale",
}
"""Name of the array of scales, by array of int8 tokens."""
TOKEN_FILL: dict[str, int | str] = {"int8": -128, "float16": "NaN"}
"""Fill value by data type; -128 is no stored number, and the scale of a hole is NaN."""
INT8_TOKEN_BLOSC: dict[str, Any] = {
    "typesize": 1,
    "cname": "zstd",
    "clevel": 3,
    "shuffle": "noshuffle",
    "blocksize": 0,
}
"""Numbers of a token cluster around 0: entropy coding takes 7 to 7.5 bits of 8, lz4 all of them."""


@dataclass(frozen=True)
class CropFormat:
    """How a teacher's crops are stored."""

    quality: int
    """JPEG quality, 1 to ``MAX_QUALITY``."""
    subsampling: str
    """Chroma subsampling, one of ``SUBSAMPLINGS``."""
    length: int
    """Bytes of one view in the array, zeros included."""
    margin_hw: tuple[int, int] = (0, 0)
    """Pixels that the stored crop has above and below, and left and right, of the teacher's input;
    either both are 0 or none is."""

    def stored_size_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Return (H', W') of the stored crop, for a teacher's input of (H, W)."""
        (height, width), (rows, columns) = size_hw, self.margin_hw
        return height + 2 * rows, width + 2 * columns

    def to_json(self) -> dict[str, Any]:
        """Return the identity's section ``crops``; without a margin it has no such field."""
        section = {"quality": self.quality, "subsampling": self.subsampling, "length": self.length}
        return {**section, "margin_hw": list(self.margin_hw)} if any(self.margin_hw) else section

    @classmethod
    def from_json(cls, found: dict[str, Any], size_hw: tuple[int, int]) -> "CropFormat":
        """Return the settings of an identity's section ``crops``.

        Args:
            size_hw: (H, W) of the teacher's input, from the section ``views``.

        Raises:
            SchemaError: a setting is missing, unknown or out of bounds.
        """
        where = "identity.crops"
        quality, length = take_int(found, "quality", where), take_int(found, "length", where)
        margin_hw = take_size_hw(found, "margin_hw", where) if "margin_hw" in found else (0, 0)
        crops = crop_format(size_hw, quality, str(found.get("subsampling")), margin_hw)
        if found != crops.to_json():
            raise SchemaError(f"{where} must be {crops.to_json()}, got {found} of length {length}")
        return crops


@dataclass(frozen=True)
class TokenFormat:
    """Which tokens of a teacher are stored, and their sizes."""

    kinds: tuple[str, ...]
    """Members of ``TOKEN_KINDS``, in that order."""
    dim: int
    """Channels of a token, D."""
    grid_hw: tuple[int, int]
    """Grid of the patches that the visual tokens stand for, row by row."""
    dtype: str = "float16"
    """One of ``TOKEN_FORMATS``; int8 has a scale per token."""

    @property
    def bytes_per_number(self) -> int:
        return 1 if self.dtype == "int8" else 2

    def to_json(self) -> dict[str, Any]:
        """Return the identity's section ``tokens``; of float16 it does not name the type."""
        section = {"kinds": list(self.kinds), "dim": self.dim, "grid": list(self.grid_hw)}
        return section if self.dtype == "float16" else {**section, "dtype": self.dtype}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "TokenFormat":
        """Return the settings of an identity's section ``tokens``.

        Raises:
            SchemaError: a setting is missing, unknown or out of bounds.
        """
        where, kinds = "identity.tokens", found.get("kinds")
        tokens = cls(
            kinds=tuple(k for k in TOKEN_KINDS if isinstance(kinds, list) and k in kinds),
            dim=take_int(found, "dim", where),
            grid_hw=take_size_hw(found, "grid", where),
            dtype="int8" if found.get("dtype") == "int8" else "float16",
        )
        if found != tokens.to_json() or not tokens.kinds or not 1 <= tokens.dim <= 1 << 16:
            raise SchemaError(
                f"{where} must name kinds of {', '.join(TOKEN_KINDS)}, a dim of 1 to 65536, a "
                f"grid, and a dtype of int8 or none, got {found}"
            )
        return tokens


@dataclass(frozen=True)
class OptionalArrays:
    """Formats of the crops and tokens that a teacher has; None: it has none."""

    crops: CropFormat | None = None
    tokens: TokenFormat | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the identity's sections ``crops`` and ``tokens``, each only if it is stored."""
        sections = {"crops": self.crops, "tokens": self.tokens}
        return {name: found.to_json() for name, found in sections.items() if found is not None}

    @classmethod
    def from_json(cls, identity: dict[str, Any], size_hw: tuple[int, int]) -> "OptionalArrays":
        """Return the formats of an identity's sections ``crops`` and ``tokens``, each in bounds.

        Args:
            size_hw: (H, W) of the crops, from the section ``views``.

        Raises:
            SchemaError: a setting is missing, unknown or out of bounds.
        """
        crops = tokens = None
        if "crops" in identity:
            crops = CropFormat.from_json(take_object(identity, "crops", "identity"), size_hw)
        if "tokens" in identity:
            tokens = TokenFormat.from_json(take_object(identity, "tokens", "identity"))
        return cls(crops, tokens)

    def token_shapes(self, num_keypoints: int) -> dict[str, tuple[int, int]]:
        """Return the shape of one view of every array of tokens, by its name."""
        if self.tokens is None:
            return {}
        counts = {"keypoint": num_keypoints, "visual": math.prod(self.tokens.grid_hw)}
        return {f"{kind}_tokens": (counts[kind], self.tokens.dim) for kind in self.tokens.kinds}

    def view_bytes(self, num_keypoints: int) -> int:
        """Return the bytes of one view of the largest array of tokens, 0 without any."""
        if self.tokens is None:
            return 0
        shapes = self.token_shapes(num_keypoints).values()
        return self.tokens.bytes_per_number * max(math.prod(shape) for shape in shapes)

    @property
    def has_token_scales(self) -> bool:
        """Whether tokens are int8, with a scale each and an error that is measured."""
        return self.tokens is not None and self.tokens.dtype == "int8"

    def names(self) -> tuple[str, ...]:
        """Return the names of these arrays, in the order in which they are published."""
        names = ["crops", "crop_bytes", "crop_crc32c"] if self.crops is not None else []
        for kind in self.tokens.kinds if self.tokens is not None else ():
            tokens = f"{kind}_tokens"
            scales = [TOKEN_SCALES[tokens]] if self.has_token_scales else []
            names += [tokens, *scales, CHECKSUMS[tokens]]
        return tuple(names)


NONE = OptionalArrays()


def crop_margin_hw(size_hw: tuple[int, int], margin: float) -> tuple[int, int]:
    """Return a margin in whole pixels, rounded up: above and below, and left and right.

    Args:
        size_hw: (H, W) of the teacher's input.
        margin: Width of the margin as a fraction of H and of W; at least 0.
    """
    return math.ceil(margin * size_hw[0]), math.ceil(margin * size_hw[1])


def crop_format(
    size_hw: tuple[int, int], quality: int, subsampling: str, margin_hw: tuple[int, int] = (0, 0)
) -> CropFormat:
    """Return the format of crops of a size: as long as the pixels, so that every JPEG fits.

    Args:
        size_hw: (H, W) of the teacher's input.
        margin_hw: Pixels around it that are stored too.

    Raises:
        SchemaError: the quality or the subsampling is not a valid one, or the margin is too wide.
    """
    if not 1 <= quality <= MAX_QUALITY:
        raise SchemaError(f"the quality of crops must be 1 to {MAX_QUALITY}, got {quality}")
    if subsampling not in SUBSAMPLINGS:
        raise SchemaError(
            f"the subsampling of crops must be {' or '.join(SUBSAMPLINGS)}, got {subsampling!r}"
        )
    stored_hw = CropFormat(quality, subsampling, 0, margin_hw).stored_size_hw(size_hw)
    if any(margin_hw) and max(stored_hw) > MAX_WIDE_CROP_SIDE:
        raise SchemaError(
            f"a crop with its margin must have at most {MAX_WIDE_CROP_SIDE} pixels a side, got "
            f"{stored_hw[0]}x{stored_hw[1]}; choose a smaller --crop-margin"
        )
    height, width = (-(-side // 16) * 16 for side in stored_hw)  # JPEG's largest blocks
    return CropFormat(quality, subsampling, 3 * height * width + 1024, margin_hw)


def token_blosc(tokens: TokenFormat, profile: StoreProfile) -> dict[str, Any]:
    """Return Blosc's settings for tokens; of float16 the profile's, for two bytes."""
    if tokens.dtype == "int8":
        return INT8_TOKEN_BLOSC
    maps = profile if isinstance(profile, HeatmapProfile) else PROFILES[DEFAULT_PROFILE]
    return {**maps.blosc(), "typesize": 2}
