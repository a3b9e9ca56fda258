"""Read keypoints and confidences of any store, without its heatmaps.

A process keeps the records of some shards in memory, compared with their digests; views of other
shards are read piece by piece once their shard was compared. What is kept does not grow with the
store.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.teacher_store.plan import StoreLayout, determinant_of
from pipeline.teacher_store.shard_files import ManifestFiles
from pipeline.teacher_store.shards import KEPT_BYTES
from pipeline.teacher_store.stored_views import StoredViewPlan
from store_schemas.keypoint_codec import KeypointProfile


@dataclass(frozen=True)
class StoredKeypoints:
    """Stored keypoints of B views."""

    confidence: NDArray[np.float32]  # (B, K), peak heat
    keypoints: NDArray[np.float32]  # (B, K, 2) as (x, y), crop pixels, as the teacher decoded them
    image_to_crop: NDArray[np.float64]  # (B, 2, 3), mirroring included
    is_mirrored: NDArray[np.bool_]  # (B,)
    status: NDArray[np.uint8]  # (B,), all OK


class KeypointFiles:
    """The keypoints of one teacher, read by view; fork-safe, as it keeps no file open."""

    def __init__(self, layout: StoreLayout, plan: StoredViewPlan, files: ManifestFiles) -> None:
        num_keypoints = layout.dimensions.num_keypoints
        self._dtype = np.dtype(
            [
                ("confidence", "<f4", (num_keypoints,)),
                ("keypoints", "<f4", (num_keypoints, 2)),
                ("image_to_crop", "<f8", (2, 3)),
            ]
        )
        self._arrays: dict[str, tuple[str, tuple[int, ...]]] = (
            {"keypoints": ("<i2", (num_keypoints, 2)), "confidences": ("<f2", (num_keypoints,))}
            if isinstance(layout.dimensions.profile, KeypointProfile)
            else {"outputs": ("<f4", (num_keypoints, 4))}
        )
        """Data type and shape of a view of each array that is read."""
        self._dimensions = layout.dimensions
        self._plan = plan
        self._files = files
        self._views_per_shard = layout.dimensions.rows_per_shard * layout.dimensions.num_views
        shard_bytes = self._views_per_shard * self._dtype.itemsize
        self._max_kept = max(1, KEPT_BYTES // shard_bytes)
        self._kept: dict[int, NDArray[np.void]] = {}
        """Records by shard, the first read first."""
        self._compared: set[int] = set()
        """Shards whose files were compared with their digests."""

    def read(self, views: NDArray[np.int64], status: NDArray[np.uint8]) -> StoredKeypoints:
        """Read B views, all with status OK.

        Args:
            views: (B,), row * V + view.
            status: (B,).

        Raises:
            CorruptError: a file is missing, torn or altered.
        """
        records = np.empty(len(views), self._dtype)
        for i, view in enumerate(views.tolist()):
            records[i] = self._record(*divmod(view, self._views_per_shard))
        image_to_crop = records["image_to_crop"].astype(np.float64)
        return StoredKeypoints(
            confidence=records["confidence"].astype(np.float32),
            keypoints=records["keypoints"].astype(np.float32),
            image_to_crop=image_to_crop,
            is_mirrored=determinant_of(image_to_crop) < 0,
            status=status,
        )

    def _record(self, shard: int, place: int) -> np.void:
        kept = self._kept.get(shard)
        if kept is None:
            if shard in self._compared and len(self._kept) >= self._max_kept:
                return self._record_alone(shard, place)
            while len(self._kept) >= self._max_kept:
                self._kept.pop(next(iter(self._kept)))
            kept = self._kept[shard] = self._records_of_shard(shard)
            self._compared.add(shard)
        return np.void(kept[place])

    def _records_of_shard(self, shard: int) -> NDArray[np.void]:
        """Return the records of a shard's views, its files compared with their digests."""
        rows = self._dimensions.shard_rows(shard)
        values = {
            name: self._files.read_rows(name, shard).reshape(-1, *shape)
            for name, (_, shape) in self._arrays.items()
        }
        return self._records(values, self._plan.read_rows(rows))

    def _record_alone(self, shard: int, place: int) -> np.void:
        """Return the record of one view of a shard that was compared before."""
        first = self._dimensions.shard_rows(shard).start * self._dimensions.num_views
        values = {}
        for name, (dtype, shape) in self._arrays.items():
            num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            data = self._files.read_piece(name, shard, place, num_bytes)
            values[name] = np.frombuffer(data, dtype).reshape(1, *shape)
        return np.void(self._records(values, self._plan.read_affine(first + place))[0])

    def _records(self, values: dict[str, NDArray[Any]], affines: bytes) -> NDArray[np.void]:
        image_to_crop = np.frombuffer(affines, "<f8").reshape(-1, 2, 3)
        records = np.empty(len(image_to_crop), self._dtype)
        records["image_to_crop"] = image_to_crop
        profile = self._dimensions.profile
        if isinstance(profile, KeypointProfile):
            records["confidence"] = values["confidences"]
            records["keypoints"] = profile.dequantise(values["keypoints"])
        else:
            records["confidence"] = values["outputs"][..., 1]
            records["keypoints"] = values["outputs"][..., 2:]
        return records
