"""Which shards a teacher store has, and the exact bytes of each.

While a store grows, a shard's receipt is one JSON object, published after the shard's files are
durable. A complete store holds the same facts as Zarr arrays, and ``content`` is their sha256.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.file_layer import file_sha256, file_size, read_file
from store_schemas.chunks import plain_chunk_bytes
from store_schemas.errors import CorruptError, SchemaError
from store_schemas.identity import array_sha256, canonical_json
from store_schemas.metadata import MAX_METADATA_BYTES, parse_json
from store_schemas.teacher_store import TEACHER_ARRAYS, ArraySpec, Status, StoreDimensions

MANIFEST_ARRAYS = ("rows", "lengths", "sha256", "status_counts")


@dataclass(frozen=True)
class ShardReceipt:
    """What was published of one shard; files in the order of ``TEACHER_ARRAYS``."""

    shard: int
    rows: tuple[int, int]
    """First instance, and the one after the last."""
    lengths: tuple[int, ...]
    sha256: tuple[str, ...]
    status_counts: tuple[int, ...]
    """Views by status code."""

    def to_json(self, fingerprint: str) -> bytes:
        """Return the receipt's object, bound to one identity."""
        return canonical_json(
            {
                "fingerprint": fingerprint,
                "shard": self.shard,
                "rows": self.rows,
                "lengths": self.lengths,
                "sha256": self.sha256,
                "status_counts": self.status_counts,
            }
        )


def receipt_path(folder: Path, shard: int) -> Path:
    """Return where a shard's receipt lies, given the teacher's folder."""
    return folder / "manifest" / f"{shard:06d}.json"


def read_receipt(
    folder: Path, shard: int, dimensions: StoreDimensions, fingerprint: str
) -> ShardReceipt | None:
    """Return a shard's receipt, None where there is none.

    Raises:
        SchemaError: the object is no receipt of this shard under this identity.
    """
    path = receipt_path(folder, shard)
    try:
        found = parse_json(read_file(path, MAX_METADATA_BYTES), str(path))
    except FileNotFoundError:
        return None
    rows = dimensions.shard_rows(shard)
    receipt = ShardReceipt(
        shard=shard,
        rows=(rows.start, rows.stop),
        lengths=_integers(found, "lengths", len(TEACHER_ARRAYS)),
        sha256=_digests(found),
        status_counts=_integers(found, "status_counts", len(Status)),
    )
    if canonical_json(found) != receipt.to_json(fingerprint):
        raise SchemaError(
            f"{path} must be the receipt of shard {shard}, rows {rows.start} to {rows.stop}, of "
            f"the identity {fingerprint[:12]}; remove it to have the shard written again"
        )
    return receipt


def has_shard_files(
    folder: Path, specs: dict[str, ArraySpec], receipt: ShardReceipt, *, read: bool
) -> bool:
    """Say whether the files of a shard are those of its receipt: lengths, and if asked sha256.

    Args:
        specs: The teacher's arrays by name.
    """
    for name, length, digest in zip(TEACHER_ARRAYS, receipt.lengths, receipt.sha256, strict=True):
        path = folder / name / specs[name].chunk_key(receipt.shard)
        if file_size(path) != length or (read and file_sha256(path) != digest):
            return False
    return True


@dataclass(frozen=True)
class Manifest:
    """The receipts of a store as columns; rows of absent shards are zero."""

    is_present: NDArray[np.bool_]  # (S,)
    rows: NDArray[np.int64]  # (S, 2), first instance and the one after the last
    lengths: NDArray[np.int64]  # (S, 4), bytes
    sha256: NDArray[np.uint8]  # (S, 4, 32)
    status_counts: NDArray[np.int64]  # (S, 4), views by status code

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of the group ``manifest`` by name."""
        return {name: getattr(self, name) for name in MANIFEST_ARRAYS}

    @property
    def content(self) -> str:
        """sha256 of the manifest, and so of every byte a teacher wrote; hexadecimal."""
        digests = {name: array_sha256(values) for name, values in self.arrays().items()}
        return hashlib.sha256(canonical_json(digests)).hexdigest()


def manifest_of_receipts(receipts: list[ShardReceipt | None]) -> Manifest:
    """Return the receipts as columns, one per shard."""
    num_shards, num_arrays = len(receipts), len(TEACHER_ARRAYS)
    manifest = Manifest(
        is_present=np.array([receipt is not None for receipt in receipts], np.bool_),
        rows=np.zeros((num_shards, 2), np.int64),
        lengths=np.zeros((num_shards, num_arrays), np.int64),
        sha256=np.zeros((num_shards, num_arrays, 32), np.uint8),
        status_counts=np.zeros((num_shards, len(Status)), np.int64),
    )
    for receipt in receipts:
        if receipt is None:
            continue
        manifest.rows[receipt.shard] = receipt.rows
        manifest.lengths[receipt.shard] = receipt.lengths
        digests = bytes.fromhex("".join(receipt.sha256))
        manifest.sha256[receipt.shard] = np.frombuffer(digests, np.uint8).reshape(-1, 32)
        manifest.status_counts[receipt.shard] = receipt.status_counts
    return manifest


def manifest_of_arrays(
    arrays: dict[str, NDArray[Any]], dimensions: StoreDimensions, specs: dict[str, ArraySpec]
) -> Manifest:
    """Return the manifest of a complete store from its arrays by name.

    Args:
        specs: The teacher's arrays by name.

    Raises:
        CorruptError: it speaks of other rows or lengths than the store's grid.
    """
    manifest = Manifest(np.ones(dimensions.num_shards, np.bool_), **arrays)
    for shard in range(dimensions.num_shards):
        rows = dimensions.shard_rows(shard)
        if manifest.rows[shard].tolist() != [rows.start, rows.stop]:
            raise CorruptError(
                f"manifest: shard {shard} must hold rows {rows.start} to {rows.stop}, got "
                f"{manifest.rows[shard].tolist()}"
            )
    for column, name in enumerate(TEACHER_ARRAYS[1:], start=1):
        expected = plain_chunk_bytes(specs[name])
        if (manifest.lengths[:, column] != expected).any():
            raise CorruptError(f"manifest: every file of {name} must have {expected} bytes")
    return manifest


def _integers(found: dict[str, Any], field: str, count: int) -> tuple[int, ...]:
    values = found.get(field)
    if (
        not isinstance(values, list)
        or len(values) != count
        or not all(type(value) is int and 0 <= value <= 1 << 40 for value in values)
    ):
        raise SchemaError(f"receipt: '{field}' must be {count} whole numbers, got {values!r}")
    return tuple(values)


def _digests(found: dict[str, Any]) -> tuple[str, ...]:
    values = found.get("sha256")
    digits = frozenset("0123456789abcdef")
    if (
        not isinstance(values, list)
        or len(values) != len(TEACHER_ARRAYS)
        or not all(isinstance(v, str) and len(v) == 64 and digits.issuperset(v) for v in values)
    ):
        raise SchemaError(f"receipt: 'sha256' must be {len(TEACHER_ARRAYS)} digests")
    return tuple(values)
