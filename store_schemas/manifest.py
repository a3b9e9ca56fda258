"""Manifest of a teacher's shards: which are present, and the exact bytes of each.

While a store grows, a shard's receipt is one JSON object, published after the shard's files are
durable. A complete store holds the same facts as Zarr arrays, and the root's ``content`` is their
sha256.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from store_schemas.chunks import RESTORE, plain_chunk_bytes
from store_schemas.errors import CorruptError, SchemaError, StoreError
from store_schemas.heatmap_codec import CodecError
from store_schemas.layout import TeacherLayout, check_document, read_array
from store_schemas.metadata import (
    MAX_METADATA_BYTES,
    canonical_json,
    content_sha256,
    parse_json,
    take_digest,
    take_ints,
)
from store_schemas.root_metadata import TeacherEntry
from store_schemas.teacher_store import TOKEN_ERROR, Status, group_metadata

MANIFEST_ARRAYS = ("rows", "lengths", "sha256", "status_counts", "images_sha256", "codec_error")


@dataclass(frozen=True)
class ShardReceipt:
    """Facts about one published shard; files in the order of the layout's ``shard_specs``."""

    shard: int
    rows: tuple[int, int]
    """First instance, and the one after the last."""
    lengths: tuple[int, ...]
    """Bytes of each file."""
    sha256: tuple[str, ...]
    """sha256 of each file, hexadecimal."""
    status_counts: tuple[int, ...]
    """Views by status code."""
    images_sha256: str
    """``digest_of_images`` of the shard's people: the pixels that the shard was made from."""
    codec_error: CodecError
    token_error: CodecError | None = None
    """Error of int8 tokens, relative to each token's largest number; None: the store has none."""

    def to_json(self, fingerprint: str) -> dict[str, Any]:
        """Return the receipt's object, bound to one identity."""
        receipt = {
            "fingerprint": fingerprint,
            "shard": self.shard,
            "rows": list(self.rows),
            "lengths": list(self.lengths),
            "sha256": list(self.sha256),
            "status_counts": list(self.status_counts),
            "images_sha256": self.images_sha256,
            "codec_error": list(_columns(self.codec_error)),
        }
        if self.token_error is not None:
            receipt[TOKEN_ERROR] = list(_columns(self.token_error))
        return receipt

    @classmethod
    def from_json(
        cls,
        found: dict[str, Any],
        shard: int,
        rows: range,
        num_arrays: int,
        *,
        has_token_error: bool = False,
    ) -> Self:
        """Parse a receipt of one shard; ``rows`` and ``shard`` are the expected ones.

        Raises:
            SchemaError: a field is missing, of another type or out of bounds.
        """
        digests = found.get("sha256")
        if not isinstance(digests, list) or len(digests) != num_arrays:
            raise SchemaError(
                f"receipt: 'sha256' must be {num_arrays} sha256 digests, got {digests!r}"
            )
        return cls(
            shard=shard,
            rows=(rows.start, rows.stop),
            lengths=take_ints(found, "lengths", num_arrays, "receipt"),
            sha256=tuple(take_digest({"sha256": one}, "sha256", "receipt") for one in digests),
            status_counts=take_ints(found, "status_counts", len(Status), "receipt"),
            images_sha256=take_digest(found, "images_sha256", "receipt"),
            codec_error=_take_error(found, "codec_error"),
            token_error=_take_error(found, TOKEN_ERROR) if has_token_error else None,
        )


def digest_of_images(image_sha256: NDArray[np.uint8], image_index: NDArray[np.int64]) -> str:
    """Return the sha256 over the digests of the images that some people stand in.

    Args:
        image_sha256: (M, 32) uint8.
        image_index: (n,), the image of each of them.
    """
    return hashlib.sha256(image_sha256[image_index].tobytes()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """The receipts of a store as columns; rows of absent shards are zero."""

    is_present: NDArray[np.bool_]  # (S,)
    rows: NDArray[np.int64]  # (S, 2), first instance and the one after the last
    lengths: NDArray[np.int64]  # (S, A), bytes of each array's file
    sha256: NDArray[np.uint8]  # (S, A, 32)
    status_counts: NDArray[np.int64]  # (S, 4), views by status code
    images_sha256: NDArray[np.uint8]  # (S, 32)
    codec_error: NDArray[np.float64]  # (S, 3), see ``CODEC_ERROR_COLUMNS``
    token_error: NDArray[np.float64] | None = None  # (S, 3); None: the tokens are not int8

    @classmethod
    def of_receipts(cls, receipts: Iterable[ShardReceipt | None], num_arrays: int) -> Self:
        """Return the receipts as columns, one per shard; None: the shard is absent."""
        found = list(receipts)
        num_shards = len(found)
        manifest = cls(
            is_present=np.array([receipt is not None for receipt in found], np.bool_),
            rows=np.zeros((num_shards, 2), np.int64),
            lengths=np.zeros((num_shards, num_arrays), np.int64),
            sha256=np.zeros((num_shards, num_arrays, 32), np.uint8),
            status_counts=np.zeros((num_shards, len(Status)), np.int64),
            images_sha256=np.zeros((num_shards, 32), np.uint8),
            codec_error=np.zeros((num_shards, 3), np.float64),
            token_error=(
                np.zeros((num_shards, 3), np.float64)
                if any(receipt is not None and receipt.token_error is not None for receipt in found)
                else None
            ),
        )
        for receipt in filter(None, found):
            shard = receipt.shard
            manifest.rows[shard] = receipt.rows
            manifest.lengths[shard] = receipt.lengths
            manifest.sha256[shard] = [digest_bytes(digest) for digest in receipt.sha256]
            manifest.status_counts[shard] = receipt.status_counts
            manifest.images_sha256[shard] = digest_bytes(receipt.images_sha256)
            manifest.codec_error[shard] = _columns(receipt.codec_error)
            if manifest.token_error is not None and receipt.token_error is not None:
                manifest.token_error[shard] = _columns(receipt.token_error)
        return manifest

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of the group ``manifest`` by name."""
        arrays = {name: getattr(self, name) for name in MANIFEST_ARRAYS}
        return arrays if self.token_error is None else arrays | {TOKEN_ERROR: self.token_error}

    @property
    def content_sha256(self) -> str:
        """sha256 of the manifest, and so of every byte a teacher wrote; hexadecimal."""
        return content_sha256(self.arrays())

    def receipt(self, shard: int) -> ShardReceipt | None:
        """Return a shard's receipt, None where it is absent."""
        if not self.is_present[shard]:
            return None
        start, stop = self.rows[shard].tolist()
        return ShardReceipt(
            shard=shard,
            rows=(start, stop),
            lengths=tuple(self.lengths[shard].tolist()),
            sha256=tuple(digest.tobytes().hex() for digest in self.sha256[shard]),
            status_counts=tuple(self.status_counts[shard].tolist()),
            images_sha256=self.images_sha256[shard].tobytes().hex(),
            codec_error=_error_of(self.codec_error[shard]),
            token_error=None if self.token_error is None else _error_of(self.token_error[shard]),
        )

    def receipts(self) -> Iterator[ShardReceipt]:
        """Yield the receipts of the shards that are present."""
        yield from filter(None, map(self.receipt, range(len(self.is_present))))


def digest_bytes(digits: str) -> NDArray[np.uint8]:
    """Return a digest in hexadecimal as (32,) uint8."""
    return np.frombuffer(bytes.fromhex(digits), np.uint8)


def read_receipt(layout: TeacherLayout, shard: int) -> ShardReceipt | None:
    """Return a shard's receipt, None where there is none.

    Raises:
        SchemaError: the object is no receipt of this shard under this identity.
        CorruptError: it is no plain file.
    """
    name, fingerprint = layout.receipt_name(shard), layout.identity.fingerprint
    try:
        found = parse_json(layout.folder.read(name, MAX_METADATA_BYTES), name)
    except FileNotFoundError:
        return None
    rows = layout.dimensions.shard_rows(shard)
    has_token_error = layout.dimensions.optional.has_token_scales
    receipt = ShardReceipt.from_json(
        found, shard, rows, len(layout.shard_specs), has_token_error=has_token_error
    )
    if canonical_json(found) != canonical_json(receipt.to_json(fingerprint)):
        raise SchemaError(
            f"{name} must be the receipt of shard {shard}, rows {rows.start} to {rows.stop}, of "
            f"the identity {fingerprint[:12]}; remove it to have the shard written again"
        )
    return receipt


def read_manifest(
    layout: TeacherLayout, entry: TeacherEntry, bad_receipts: dict[int, StoreError] | None = None
) -> Manifest:
    """Return which shards are present: of a complete store its arrays, else its receipts.

    Args:
        bad_receipts: Collects errors of receipts, by shard; such a shard counts as absent. None:
            the first error is raised.

    Raises:
        SchemaError: a receipt or metadata that this program never writes.
        CorruptError: the manifest is not the one that the root's ``content`` was taken of.
    """
    if entry.is_complete:
        return _read_arrays(layout, entry)
    receipts: list[ShardReceipt | None] = []
    for shard in range(layout.dimensions.num_shards):
        try:
            receipts.append(read_receipt(layout, shard))
        except StoreError as error:
            if bad_receipts is None:
                raise
            bad_receipts[shard] = error
            receipts.append(None)
    return Manifest.of_receipts(receipts, len(layout.shard_specs))


def _read_arrays(layout: TeacherLayout, entry: TeacherEntry) -> Manifest:
    check_document(layout.folder, f"{layout.teacher_path}/manifest", group_metadata())
    arrays = {name: read_array(layout.folder, s) for name, s in layout.manifest_specs.items()}
    manifest = Manifest(np.ones(layout.dimensions.num_shards, np.bool_), **arrays)
    check_manifest(manifest, layout)
    if manifest.content_sha256 != entry.content_sha256:
        raise CorruptError(
            f"{layout.folder}: content must be {entry.content_sha256}, the manifest's sha256 is "
            f"{manifest.content_sha256}{RESTORE}"
        )
    return manifest


def check_manifest(manifest: Manifest, layout: TeacherLayout) -> None:
    """Refuse the manifest of a complete store that does not follow the store's grid.

    Raises:
        CorruptError: its rows or lengths are not those of the shards.
    """
    for shard in range(layout.dimensions.num_shards):
        rows = layout.dimensions.shard_rows(shard)
        if manifest.rows[shard].tolist() != [rows.start, rows.stop]:
            raise CorruptError(
                f"manifest: shard {shard} must hold rows {rows.start} to {rows.stop}, got "
                f"{manifest.rows[shard].tolist()}"
            )
    for column, (name, spec) in enumerate(layout.shard_specs.items()):
        expected = plain_chunk_bytes(spec)
        if not spec.is_sharded and (manifest.lengths[:, column] != expected).any():
            raise CorruptError(f"manifest: every file of {name} must have {expected} bytes")


def shards_of_other_images(
    manifest: Manifest, image_sha256: NDArray[np.uint8], image_index: NDArray[np.int64]
) -> Iterator[tuple[int, str, str]]:
    """Yield the shards that were written from images of other digests, in order.

    Args:
        image_sha256: (M, 32) uint8.
        image_index: (N,), the image of each person.

    Yields:
        The shard, the digest of its images as its receipt has it, and the one found.
    """
    for shard in np.flatnonzero(manifest.is_present).tolist():
        found = digest_of_images(image_sha256, image_index[slice(*manifest.rows[shard].tolist())])
        expected = manifest.images_sha256[shard].tobytes().hex()
        if found != expected:
            yield shard, expected, found


def check_images(
    manifest: Manifest,
    layout: TeacherLayout,
    image_sha256: NDArray[np.uint8],
    image_index: NDArray[np.int64],
) -> None:
    """Refuse image digests that are not those a store's shards were written from.

    Raises:
        CorruptError: names the first shard.
    """
    for shard, expected, found in shards_of_other_images(manifest, image_sha256, image_index):
        raise CorruptError(
            f"{layout.folder}: shard {shard} must belong to images of digest {expected[:12]}, "
            f"people/image_sha256 gives {found[:12]}; run distil store repair"
        )


def _columns(error: CodecError) -> tuple[float, float, int]:
    return error.largest, error.sum_of_squares, error.num_values


def _error_of(columns: NDArray[np.float64]) -> CodecError:
    largest, sum_of_squares, num_values = columns.tolist()
    return CodecError(largest, sum_of_squares, int(num_values))


def _take_error(found: dict[str, Any], field: str) -> CodecError:
    values = found.get(field)
    if (
        not isinstance(values, list)
        or [type(value) for value in values] != [float, float, int]
        or not all(0 <= value < 1e300 for value in values)
    ):
        raise SchemaError(f"receipt: '{field}' must be three numbers, got {values!r}")
    return CodecError(*values)
