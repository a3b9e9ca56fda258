"""Arrays that a teacher has only where they were asked for: its crops, and its tokens.

The crops are JPEG files, each followed by zeros to one fixed length, which Blosc then folds up;
``crop_bytes`` says where the file ends. Tokens are float16. As with heatmaps one view is one inner
chunk, and a ``..._crc32c`` array binds every chunk to its row.
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
"""Folds the zeros up and copies the JPEG, which nothing makes smaller."""
CHECKSUMS = {
    "crops": "crop_crc32c",
    "keypoint_tokens": "keypoint_token_crc32c",
    "visual_tokens": "visual_token_crc32c",
}
"""By sharded array, the one that binds its chunks to their rows."""


@dataclass(frozen=True)
class CropFormat:
    """How a teacher's crops are stored."""

    quality: int
    """Of JPEG, 1 to ``MAX_QUALITY``."""
    subsampling: str
    """Of chroma, see ``SUBSAMPLINGS``."""
    length: int
    """Bytes of one view in the array, zeros included."""

    def to_json(self) -> dict[str, Any]:
        """Return the settings as an identity keeps them."""
        return {"quality": self.quality, "subsampling": self.subsampling, "length": self.length}


@dataclass(frozen=True)
class TokenFormat:
    """Which tokens of a teacher are stored, and their sizes."""

    kinds: tuple[str, ...]
    """Of ``TOKEN_KINDS``, in that order."""
    dim: int
    """D."""
    grid_hw: tuple[int, int]
    """Patches of the visual tokens, row by row."""

    def to_json(self) -> dict[str, Any]:
        """Return the settings as an identity keeps them."""
        return {"kinds": list(self.kinds), "dim": self.dim, "grid": list(self.grid_hw)}


@dataclass(frozen=True)
class OptionalArrays:
    """What a teacher keeps beside its heatmaps; nothing of it unless it was asked for."""

    crops: CropFormat | None = None
    tokens: TokenFormat | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the identity's sections ``crops`` and ``tokens``, those that there are."""
        sections = {"crops": self.crops, "tokens": self.tokens}
        return {name: found.to_json() for name, found in sections.items() if found is not None}

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
        """Return the arrays of a teacher that has these, in the order of publishing."""
        crops = ("crops", "crop_bytes", "crop_crc32c") if self.crops is not None else ()
        tokens = [f"{kind}_tokens" for kind in self.tokens.kinds] if self.tokens else []
        return (*crops, *(name for one in tokens for name in (one, CHECKSUMS[one])))


NONE = OptionalArrays()


def crop_format(size_hw: tuple[int, int], quality: int, subsampling: str) -> CropFormat:
    """Return the format of crops of a size: as long as the pixels, so that every JPEG fits.

    Raises:
        SchemaError: the quality or the subsampling is none.
    """
    _check_jpeg(quality, subsampling)
    height, width = (-(-side // 16) * 16 for side in size_hw)  # JPEG's largest blocks
    return CropFormat(quality, subsampling, 3 * height * width + 1024)


def optional_of(identity: dict[str, Any]) -> OptionalArrays:
    """Return what an identity's sections ``crops`` and ``tokens`` record, each in bounds.

    Raises:
        SchemaError: a setting is missing, unknown or out of bounds.
    """
    return OptionalArrays(
        _crops_of(identity) if "crops" in identity else None,
        _tokens_of(identity) if "tokens" in identity else None,
    )


def token_blosc(profile: HeatmapProfile) -> dict[str, Any]:
    """Return Blosc's settings for tokens: the profile's, for two bytes."""
    return {**profile.blosc(), "typesize": 2}


def _crops_of(identity: dict[str, Any]) -> CropFormat:
    where = "identity.crops"
    found = take_object(identity, "crops", "identity")
    quality, length = take_int(found, "quality", where), take_int(found, "length", where)
    views = take_object(identity, "views", "identity")
    size_hw = take_size_hw(views, "input_size_hw", "identity.views")
    crops = crop_format(size_hw, quality, str(found.get("subsampling")))
    if found != crops.to_json():
        raise SchemaError(f"{where} must be {crops.to_json()}, got {found} of length {length}")
    return crops


def _tokens_of(identity: dict[str, Any]) -> TokenFormat:
    where = "identity.tokens"
    found = take_object(identity, "tokens", "identity")
    tokens = TokenFormat(
        kinds=tuple(kind for kind in TOKEN_KINDS if kind in _list(found.get("kinds"))),
        dim=take_int(found, "dim", where),
        grid_hw=take_size_hw(found, "grid", where),
    )
    if found != tokens.to_json() or not tokens.kinds or not 1 <= tokens.dim <= 1 << 16:
        raise SchemaError(
            f"{where} must name kinds of {', '.join(TOKEN_KINDS)}, a dim of 1 to 65536 and a grid, "
            f"got {found}"
        )
    return tokens


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _check_jpeg(quality: int, subsampling: str) -> None:
    if not 1 <= quality <= MAX_QUALITY:
        raise SchemaError(f"the quality of crops must be 1 to {MAX_QUALITY}, got {quality}")
    if subsampling not in SUBSAMPLINGS:
        raise SchemaError(
            f"the subsampling of crops must be {' or '.join(SUBSAMPLINGS)}, got {subsampling!r}"
        )
