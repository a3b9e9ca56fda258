"""Which shards a teacher store has, and the exact bytes of each.

While a store grows, a shard's receipt is one JSON object, published after the shard's files are
durable. A complete store holds the same facts as Zarr arrays, and ``content`` is their sha256.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.teacher_store.layout import StoreLayout
from store_schemas.chunks import plain_chunk_bytes
from store_schemas.errors import CorruptError, SchemaError
from store_schemas.heatmap_codec import CodecError
from store_schemas.identity import canonical_json, content_sha256
from store_schemas.metadata import MAX_METADATA_BYTES, parse_json
from store_schemas.teacher_store import Status

MANIFEST_ARRAYS = (
    "rows",
    "lengths",
    "sha256",
    "status_counts",
    "images_sha256",
    "codec_error",
)


@dataclass(frozen=True)
class ShardReceipt:
    """What was published of one shard; files in the order of the layout's ``shard_specs``."""

    shard: int
    rows: tuple[int, int]
    """First instance, and the one after the last."""
    lengths: tuple[int, ...]
    sha256: tuple[str, ...]
    status_counts: tuple[int, ...]
    """Views by status code."""
    images_sha256: str
    """Digest of the digests of the shard's images: the pixels that the shard belongs to."""
    codec_error: CodecError

    def to_json(self, fingerprint: str) -> bytes:
        """Return the receipt's object, bound to one identity."""
        error = self.codec_error
        return canonical_json(
            {
                "fingerprint": fingerprint,
                "shard": self.shard,
                "rows": self.rows,
                "lengths": self.lengths,
                "sha256": self.sha256,
                "status_counts": self.status_counts,
                "images_sha256": self.images_sha256,
                "codec_error": [error.largest, error.sum_of_squares, error.num_values],
            }
        )


def digest_of_images(image_sha256: NDArray[np.uint8], image_index: NDArray[np.int64]) -> str:
    """Return the sha256 over the digests of the images that some people stand in.

    Args:
        image_sha256: (M, 32) uint8.
        image_index: (n,), the image of each of them.
    """
    return hashlib.sha256(image_sha256[image_index].tobytes()).hexdigest()


def read_receipt(layout: StoreLayout, shard: int, fingerprint: str) -> ShardReceipt | None:
    """Return a shard's receipt, None where there is none.

    Raises:
        SchemaError: the object is no receipt of this shard under this identity.
    """
    name = layout.receipt_name(shard)
    try:
        found = parse_json(layout.folder.read(name, MAX_METADATA_BYTES), name)
    except FileNotFoundError:
        return None
    rows, num_arrays = layout.dimensions.shard_rows(shard), len(layout.shard_specs)
    receipt = ShardReceipt(
        shard=shard,
        rows=(rows.start, rows.stop),
        lengths=_integers(found, "lengths", num_arrays),
        sha256=_digests(found.get("sha256"), num_arrays),
        status_counts=_integers(found, "status_counts", len(Status)),
        images_sha256=_digests([found.get("images_sha256")], 1)[0],
        codec_error=_codec_error(found),
    )
    if canonical_json(found) != receipt.to_json(fingerprint):
        raise SchemaError(
            f"{name} must be the receipt of shard {shard}, rows {rows.start} to {rows.stop}, of "
            f"the identity {fingerprint[:12]}; remove it to have the shard written again"
        )
    return receipt


def bad_shard_files(layout: StoreLayout, receipt: ShardReceipt, *, read: bool) -> list[str]:
    """Return what is wrong with a shard's files: lengths, and if asked sha256; [] if nothing."""
    found = []
    files = layout.shard_files(receipt.shard).values()
    for name, length, digest in zip(files, receipt.lengths, receipt.sha256, strict=True):
        size = layout.folder.size(name)
        if size is None:
            found.append(f"{name} is missing")
        elif size != length:
            found.append(f"{name} must have {length} bytes, got {size}")
        elif read:
            try:
                got = layout.folder.sha256(name)
            except CorruptError as error:  # of a disk that cannot read it
                found.append(str(error))
                continue
            if got != digest:
                found.append(f"{name} must have sha256 {digest[:12]}, got {got[:12]}")
    return found


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

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of the group ``manifest`` by name."""
        return {name: getattr(self, name) for name in MANIFEST_ARRAYS}

    @property
    def content(self) -> str:
        """sha256 of the manifest, and so of every byte a teacher wrote; hexadecimal."""
        return content_sha256(self.arrays())

    def receipt(self, shard: int) -> ShardReceipt | None:
        """Return a shard's receipt, None where it is absent."""
        if not self.is_present[shard]:
            return None
        largest, sum_of_squares, num_values = self.codec_error[shard].tolist()
        start, stop = self.rows[shard].tolist()
        return ShardReceipt(
            shard=shard,
            rows=(start, stop),
            lengths=tuple(self.lengths[shard].tolist()),
            sha256=tuple(digest.tobytes().hex() for digest in self.sha256[shard]),
            status_counts=tuple(self.status_counts[shard].tolist()),
            images_sha256=self.images_sha256[shard].tobytes().hex(),
            codec_error=CodecError(largest, sum_of_squares, int(num_values)),
        )


def manifest_of_receipts(receipts: Iterable[ShardReceipt | None], num_arrays: int) -> Manifest:
    """Return the receipts as columns, one per shard."""
    found = list(receipts)
    num_shards = len(found)
    manifest = Manifest(
        is_present=np.array([receipt is not None for receipt in found], np.bool_),
        rows=np.zeros((num_shards, 2), np.int64),
        lengths=np.zeros((num_shards, num_arrays), np.int64),
        sha256=np.zeros((num_shards, num_arrays, 32), np.uint8),
        status_counts=np.zeros((num_shards, len(Status)), np.int64),
        images_sha256=np.zeros((num_shards, 32), np.uint8),
        codec_error=np.zeros((num_shards, 3), np.float64),
    )
    for receipt in found:
        if receipt is None:
            continue
        shard, error = receipt.shard, receipt.codec_error
        manifest.rows[shard] = receipt.rows
        manifest.lengths[shard] = receipt.lengths
        manifest.sha256[shard] = _digest_bytes("".join(receipt.sha256))
        manifest.status_counts[shard] = receipt.status_counts
        manifest.images_sha256[shard] = _digest_bytes(receipt.images_sha256)
        manifest.codec_error[shard] = (error.largest, error.sum_of_squares, error.num_values)
    return manifest


def check_manifest(manifest: Manifest, layout: StoreLayout) -> None:
    """Refuse the manifest of a complete store that does not follow the store's grid.

    Raises:
        CorruptError: it speaks of other rows or lengths.
    """
    for shard in range(layout.dimensions.num_shards):
        rows = layout.dimensions.shard_rows(shard)
        if manifest.rows[shard].tolist() != [rows.start, rows.stop]:
            raise CorruptError(
                f"manifest: shard {shard} must hold rows {rows.start} to {rows.stop}, got "
                f"{manifest.rows[shard].tolist()}"
            )
    for column, (name, spec) in enumerate(layout.shard_specs.items()):
        if spec.is_sharded:
            continue
        expected = plain_chunk_bytes(spec)
        if (manifest.lengths[:, column] != expected).any():
            raise CorruptError(f"manifest: every file of {name} must have {expected} bytes")


def check_images(
    manifest: Manifest,
    layout: StoreLayout,
    image_sha256: NDArray[np.uint8],
    image_index: NDArray[np.int64],
) -> None:
    """Refuse image digests that are not those a complete store's shards were written from.

    Raises:
        CorruptError: names the first shard.
    """
    for shard in np.flatnonzero(manifest.is_present).tolist():
        rows = layout.dimensions.shard_rows(shard)
        found = digest_of_images(image_sha256, image_index[rows.start : rows.stop])
        expected = manifest.images_sha256[shard].tobytes().hex()
        if found != expected:
            raise CorruptError(
                f"{layout.folder}: shard {shard} must belong to images of digest {expected[:12]}, "
                f"people/image_sha256 gives {found[:12]}; run distil store repair"
            )


def _codec_error(found: dict[str, Any]) -> CodecError:
    values = found.get("codec_error")
    if (
        not isinstance(values, list)
        or [type(value) for value in values] != [float, float, int]
        or not all(0 <= value < 1e300 for value in values)
    ):
        raise SchemaError(f"receipt: 'codec_error' must be three numbers, got {values!r}")
    return CodecError(*values)


def _digest_bytes(digits: str) -> NDArray[np.uint8]:
    digests = np.frombuffer(bytes.fromhex(digits), np.uint8)
    return digests if len(digests) == 32 else digests.reshape(-1, 32)


def _integers(found: dict[str, Any], field: str, count: int) -> tuple[int, ...]:
    values = found.get(field)
    if (
        not isinstance(values, list)
        or len(values) != count
        or not all(type(value) is int and 0 <= value <= 1 << 40 for value in values)
    ):
        raise SchemaError(f"receipt: '{field}' must be {count} whole numbers, got {values!r}")
    return tuple(values)


def _digests(values: object, count: int) -> tuple[str, ...]:
    digits = frozenset("0123456789abcdef")
    if (
        not isinstance(values, list)
        or len(values) != count
        or not all(isinstance(v, str) and len(v) == 64 and digits.issuperset(v) for v in values)
    ):
        raise SchemaError(f"receipt: there must be {count} sha256 digests, got {values!r}")
    return tuple(values)
