"""Optional arrays of a teacher: its crops and its tokens.

The crops are JPEG files, each followed by zeros to one fixed length, which Blosc compresses to
almost nothing; ``crop_bytes`` holds the length of the file. Tokens are float16. As with heatmaps
one view is one inner chunk, and a ``..._crc32c`` array binds every chunk to its row.
"""

import math
from dataclasses import dataclass
from typing import Any

from store_schemas.choices import MAX_QUALITY, SUBSAMPLINGS, TOKEN_KINDS
from store_schemas.errors import SchemaError
from store_schemas.metadata import take_int, take_object, take_size_hw
from store_schemas.profiles import HeatmapProfile

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


@dataclass(frozen=True)
class CropFormat:
    """How a teacher's crops are stored."""

    quality: int
    """JPEG quality, 1 to ``MAX_QUALITY``."""
    subsampling: str
    """Chroma subsampling, one of ``SUBSAMPLINGS``."""
    length: int
    """Bytes of one view in the array, zeros included."""

    def to_json(self) -> dict[str, Any]:
        """Return the settings as an identity keeps them."""
        return {"quality": self.quality, "subsampling": self.subsampling, "length": self.length}

    @classmethod
    def from_json(cls, found: dict[str, Any], size_hw: tuple[int, int]) -> "CropFormat":
        """Return the settings of an identity's section ``crops``.

        Args:
            size_hw: (H, W) of the crops, from the section ``views``.

        Raises:
            SchemaError: a setting is missing, unknown or out of bounds.
        """
        where = "identity.crops"
        quality, length = take_int(found, "quality", where), take_int(found, "length", where)
        crops = crop_format(size_hw, quality, str(found.get("subsampling")))
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

    def to_json(self) -> dict[str, Any]:
        """Return the settings as an identity keeps them."""
        return {"kinds": list(self.kinds), "dim": self.dim, "grid": list(self.grid_hw)}

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
        )
        if found != tokens.to_json() or not tokens.kinds or not 1 <= tokens.dim <= 1 << 16:
            raise SchemaError(
                f"{where} must name kinds of {', '.join(TOKEN_KINDS)}, a dim of 1 to 65536 and a "
                f"grid, got {found}"
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
        shapes = self.token_shapes(num_keypoints).values()
        return max((2 * math.prod(shape) for shape in shapes), default=0)

    def names(self) -> tuple[str, ...]:
        """Return the names of these arrays, in the order in which they are published."""
        crops = ("crops", "crop_bytes", "crop_crc32c") if self.crops is not None else ()
        tokens = [f"{kind}_tokens" for kind in self.tokens.kinds] if self.tokens else []
        return (*crops, *(name for one in tokens for name in (one, CHECKSUMS[one])))


NONE = OptionalArrays()


def crop_format(size_hw: tuple[int, int], quality: int, subsampling: str) -> CropFormat:
    """Return the format of crops of a size: as long as the pixels, so that every JPEG fits.

    Raises:
        SchemaError: the quality or the subsampling is not a valid one.
    """
    if not 1 <= quality <= MAX_QUALITY:
        raise SchemaError(f"the quality of crops must be 1 to {MAX_QUALITY}, got {quality}")
    if subsampling not in SUBSAMPLINGS:
        raise SchemaError(
            f"the subsampling of crops must be {' or '.join(SUBSAMPLINGS)}, got {subsampling!r}"
        )
    height, width = (-(-side // 16) * 16 for side in size_hw)  # JPEG's largest blocks
    return CropFormat(quality, subsampling, 3 * height * width + 1024)


def token_blosc(profile: HeatmapProfile) -> dict[str, Any]:
    """Return Blosc's settings for tokens: the profile's, for two bytes."""
    return {**profile.blosc(), "typesize": 2}
