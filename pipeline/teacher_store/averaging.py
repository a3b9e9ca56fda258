"""Several teachers of a store read as one: the mean of their heat, computed when a view is read.

Nothing is stored, and no teacher network runs. The mean is rounded to 255 levels of its own peak
by the store's rule (``store_schemas.heatmap_levels``), without the coarser steps that only make
maps compress better: it lies within its scale of the mean of what the store holds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.settings import HeatmapFrame
from pipeline.storage.folder import StoreFolder
from pipeline.teacher_store.cached_folder import open_for_reading
from pipeline.teacher_store.keypoint_reading import StoredKeypoints
from pipeline.teacher_store.reader import Indices, StoredViews, TeacherStore, WideCrops
from store_schemas.errors import SchemaError
from store_schemas.formats import OptionalArrays
from store_schemas.heatmap_codec import dequantise_heatmaps
from store_schemas.heatmap_levels import LEVELS, levels_of_heat
from store_schemas.metadata import fingerprint
from store_schemas.teacher_store import Status

_BLOCK = 4
"""Views averaged at a time: of larger blocks the heat leaves the processor's cache."""
_SAME_STORE = "average teachers of one heatmap size and frame, or train from one of them"


class AveragedTeachers:
    """Teachers of one store, read as ``TeacherStore`` reads one; fork-safe and picklable.

    Heatmaps are always uint8, however the teachers' are stored. A keypoint is the mean of the
    teachers' own, weighted by their confidence.
    """

    heatmap_dtype = np.dtype(np.uint8)
    has_heatmaps = True

    def __init__(self, stores: Sequence[TeacherStore]) -> None:
        """Take teachers of one store, at least two.

        Raises:
            SchemaError: their heatmaps differ in size or frame; names the two and what differs;
                or a teacher's heatmaps are not stored.
        """
        # in one order, so that "a,b" and "b,a" are the same bits
        self._stores = tuple(sorted(stores, key=lambda store: store.teacher))
        first = self._stores[0]
        for store in self._stores:
            store.require_heatmaps()
        _require_same_maps(self._stores)
        self.path = first.path
        """Location of the store."""
        self.teacher = ",".join(store.teacher for store in self._stores)
        self.people = first.people
        self.image_sha256 = first.image_sha256
        """(M, 32) uint8, digest of every image file."""
        self.views = first.views
        self.num_views = first.num_views
        self.input_size_hw = first.input_size_hw
        self.heatmap_size_hw = first.heatmap_size_hw
        self.rows_per_shard = max(store.rows_per_shard for store in self._stores)
        self.fingerprint = _fingerprint_of(self._stores)
        contents = {store.teacher: store.content_sha256 for store in self._stores}
        self.content_sha256 = fingerprint(contents)
        """sha256 over ``content_sha256`` of all teachers."""
        self.provenance = first.provenance
        self._with_crops = next((s for s in self._stores if s.optional.crops is not None), first)
        self.optional = OptionalArrays(crops=self._with_crops.optional.crops)
        """Format of the crops, of the first teacher with any; tokens cannot be averaged."""
        status = first.status.copy()
        for store in self._stores[1:]:
            status = np.where(status == Status.OK, store.status, status)
        status.flags.writeable = False
        self.status = status
        """(N, V) uint8, OK where every teacher's is, else the first other one; see ``Status``."""

    @property
    def is_remote(self) -> bool:
        """Whether they are read over a network; then not by a process that was forked."""
        return self._stores[0].is_remote

    @property
    def heatmap_frame(self) -> HeatmapFrame:
        """Convention that maps crop pixels to heatmap cells, or SchemaError if none is known."""
        return self._stores[0].heatmap_frame

    @property
    def flip_shift(self) -> int | None:
        """As of ``TeacherStore``; None, too, where the teachers' shifts differ."""
        shifts = {store.flip_shift for store in self._stores}
        return shifts.pop() if len(shifts) == 1 else None

    def present_instances(self) -> NDArray[np.int64]:
        """Return the rows of the people whose views all have status OK: (n,) int64."""
        return np.flatnonzero((self.status == Status.OK).all(axis=1)).astype(np.int64)

    def read(
        self, instances: Indices, views: Indices, out: NDArray[Any] | None = None
    ) -> StoredViews:
        """Read B views of every teacher and average them; as ``TeacherStore.read``.

        Args:
            instances: (B,) rows.
            views: (B,) in 0..V-1.
            out: (B, K, Hh, Wh) uint8 to put the heatmaps into; None: a new array.
        """
        found = [store.read(instances, views) for store in self._stores]
        shape = found[0].heatmaps.shape
        heatmaps = np.empty(shape, np.uint8) if out is None else out
        if heatmaps.shape != shape or heatmaps.dtype != np.uint8:
            raise ValueError(f"out must be uint8 {shape}, got {heatmaps.dtype} {heatmaps.shape}")
        scale = np.empty(found[0].scale.shape, np.float32)
        for start in range(0, len(scale), _BLOCK):
            block = slice(start, start + _BLOCK)
            heatmaps[block], scale[block] = _average(found, block)
        return StoredViews(
            heatmaps=heatmaps,
            scale=scale,
            confidence=scale * np.float32(LEVELS),
            keypoints=_weighted_keypoints(found),
            image_to_crop=found[0].image_to_crop,
            is_mirrored=found[0].is_mirrored,
            status=found[0].status,
        )

    def read_keypoints(self, instances: Indices, views: Indices) -> StoredKeypoints:
        """Read keypoints and confidences of B views: those of the mean of the teachers' heat."""
        return self.read(instances, views)

    def read_crops(self, instances: Indices, views: Indices) -> NDArray[np.uint8]:
        """Return the crops of B views as ``TeacherStore.read_crops`` does, of one teacher."""
        return self._with_crops.read_crops(instances, views)

    def read_wide_crops(self, instances: Indices, views: Indices) -> WideCrops:
        """Return the crops of B views as ``TeacherStore.read_wide_crops``, of one teacher."""
        return self._with_crops.read_wide_crops(instances, views)

    @property
    def crop_margin_hw(self) -> tuple[int, int]:
        """Pixels of the margin of the stored crops: above and below, and left and right."""
        return self._with_crops.crop_margin_hw

    def read_image_to_crop(self, instances: Indices, views: Indices) -> NDArray[np.float64]:
        """Return the affines of B views, whatever their status: (B, 2, 3)."""
        return self._stores[0].read_image_to_crop(instances, views)

    def __reduce__(self) -> tuple[Any, ...]:
        return AveragedTeachers, (self._stores,)

    def close(self) -> None:
        """Close the files that this process has open; reading opens them again."""
        for store in self._stores:
            store.close()


AnyTeachers = TeacherStore | AveragedTeachers
"""One teacher or several: the source of a training."""


def open_teachers(
    location: str | Path | StoreFolder, names: Sequence[str] = (), cache: Path | None = None
) -> AnyTeachers:
    """Open a complete store to read one of its teachers, or the average of several.

    Args:
        names: The teachers; none: the only one.
        cache: As for ``open_for_reading``.

    Raises:
        SchemaError: a teacher is named twice, or is not there, or they cannot be averaged.
        StoreError: what ``TeacherStore.open`` raises.
    """
    if len(set(names)) != len(names):
        raise SchemaError(
            f"teachers to average must differ, got {', '.join(names)}; name each once"
        )
    stores = [
        TeacherStore.open(open_for_reading(location, cache, name), name)
        for name in names or (None,)
    ]
    return stores[0] if len(stores) == 1 else AveragedTeachers(stores)


def _average(
    found: Sequence[StoredViews], block: slice
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the mean heat of some views as (b, K, Hh, Wh) levels and (b, K) scale."""
    share = np.float32(1 / len(found))
    first, *others = found
    heat = dequantise_heatmaps(first.heatmaps[block], first.scale[block] * share)
    for other in others:
        heat += dequantise_heatmaps(other.heatmaps[block], other.scale[block] * share)
    return levels_of_heat(heat, threshold=0.0, exact_radius=0)


def _require_same_maps(stores: Sequence[TeacherStore]) -> None:
    first, facts = stores[0], [_facts(store) for store in stores]
    for store, found in zip(stores[1:], facts[1:], strict=True):
        for name, value in facts[0].items():
            if found[name] != value:
                raise SchemaError(
                    f"{first.path}: the teachers {first.teacher} and {store.teacher} cannot be "
                    f"averaged: {name} of the first is {value}, of the second {found[name]}; "
                    f"{_SAME_STORE}"
                )


def _facts(store: TeacherStore) -> dict[str, Any]:
    return {
        "people": store.identity.people.arrays,
        "views": store.identity.views.arrays,
        "input_size_hw": store.input_size_hw,
        "heatmap_size_hw": store.heatmap_size_hw,
        "heatmap_frame": store.identity.teacher.get("heatmap_frame"),
    }


def _fingerprint_of(stores: Sequence[TeacherStore]) -> str:
    """Return the sha256 of the shared sections and the averaged teachers; a run is bound to it."""
    first = stores[0]
    codec = {
        "heatmap_size_hw": list(first.heatmap_size_hw),
        "rows_per_shard": max(store.rows_per_shard for store in stores),
        "dtype": "uint8",
    }
    teacher = {
        "heatmap_frame": first.identity.teacher.get("heatmap_frame"),
        "average_of": {store.teacher: store.fingerprint for store in stores},
    }
    return fingerprint({**first.identity.shared_json(), "codec": codec, "teacher": teacher})


def _weighted_keypoints(found: Sequence[StoredViews]) -> NDArray[np.float32]:
    """Return (B, K, 2), crop pixels; where no teacher is confident, their plain mean."""
    weight = np.stack([each.confidence for each in found]).astype(np.float64)  # (teachers, B, K)
    weight = np.where(weight.sum(axis=0) > 0, np.maximum(weight, 0), 1.0)
    weight /= weight.sum(axis=0)
    points = np.stack([each.keypoints for each in found])
    return np.asarray((points * weight[..., None]).sum(axis=0), np.float32)
