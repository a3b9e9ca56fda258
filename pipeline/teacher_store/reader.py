"""Read a teacher store: people, views, and the teacher's outputs for each view.

Opening runs no code of the store and checks all metadata; reading checks every byte it returns.
A missing, torn or altered chunk is an error that names shard and row, never zeros.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.frames.crops import central_part
from pipeline.frames.geometry import HEATMAP_FRAMES, compose, crop_to_wide_crop
from pipeline.settings import HeatmapFrame
from pipeline.storage.folder import StoreFolder, open_folder
from pipeline.teacher_store.keypoint_reading import KeypointFiles, StoredKeypoints
from pipeline.teacher_store.optional_reading import OptionalReader
from pipeline.teacher_store.plan import StoreLayout, layout_of, read_people_of_plan
from pipeline.teacher_store.shard_files import ManifestFiles, read_status
from pipeline.teacher_store.shards import ShardFiles
from pipeline.teacher_store.stored_views import StoredViewPlan
from pipeline.wording import counted
from store_schemas.errors import IdentityError, IncompleteError, SchemaError
from store_schemas.formats import HeatmapProfile
from store_schemas.manifest import Manifest, check_images, read_manifest
from store_schemas.root_metadata import TeacherEntry, read_entry
from store_schemas.teacher_store import Status

Indices = Sequence[int] | NDArray[np.int64]
"""Indices of B rows or views, (B,) whole numbers."""


@dataclass(frozen=True)
class StoredViews(StoredKeypoints):
    """Stored outputs of B views, heatmaps included."""

    heatmaps: NDArray[Any]  # (B, K, Hh, Wh) uint8 or float16; heat = heatmaps * scale
    scale: NDArray[np.float32]  # (B, K), 0 for a map of uint8 without heat


@dataclass(frozen=True)
class WideCrops:
    """Stored crops of B views with the margin that the store has around the teacher's input."""

    crops: NDArray[np.uint8]  # (B, H', W', 3), RGB; black outside of the image
    image_to_wide_crop: NDArray[np.float64]  # (B, 2, 3), mirroring included


class TeacherStore:
    """One teacher's outputs over all people and views; read-only, fork-safe and picklable."""

    def __init__(
        self,
        layout: StoreLayout,
        entry: TeacherEntry,
        people: People,
        image_sha256: NDArray[np.uint8],
        views: StoredViewPlan,
        manifest: Manifest,
    ) -> None:
        """Use ``TeacherStore.open``."""
        self.path = str(layout.folder)
        """Location of the store."""
        self.teacher = layout.teacher
        self.people = people
        self.image_sha256 = image_sha256
        """(M, 32) uint8, digest of every image file."""
        self.views = views
        """Views of every person; whole arrays are read on first use."""
        self.identity = entry.identity
        self.fingerprint = entry.fingerprint
        self.content_sha256 = entry.content_sha256
        """sha256 of the manifest; None while the store is incomplete."""
        self.execution_recipe = entry.execution_recipe
        self.provenance = entry.provenance
        self.num_views = layout.dimensions.num_views
        self.num_shards = layout.dimensions.num_shards
        self.profile = layout.dimensions.profile
        """How heatmaps are stored, or keypoints and confidences alone."""
        self.optional = layout.dimensions.optional
        """Formats of the crops and tokens that it has."""
        self.has_heatmaps = isinstance(self.profile, HeatmapProfile)
        """Whether heatmaps are stored; without them only keypoints can be read."""
        self.heatmap_size_hw = layout.dimensions.heatmap_size_hw
        """(Hh, Wh) of the teacher's heatmaps, stored or not."""
        self.input_size_hw = views.input_size_hw
        self.rows_per_shard = layout.dimensions.rows_per_shard
        self.threshold = entry.identity.codec.threshold
        self._layout = layout
        files = ManifestFiles(layout, manifest)
        self._keypoints = KeypointFiles(layout, views, files)
        self._heatmaps = ShardFiles(layout, views, files) if self.has_heatmaps else None
        self._more = OptionalReader(layout, files)
        self.status = read_status(layout, manifest, files)
        """(N, V) uint8, see ``Status``."""
        self._is_whole = bool((self.status == int(Status.OK)).all())

    @classmethod
    def open(
        cls,
        path: Path | str | StoreFolder,
        teacher: str | None = None,
        require_complete: bool = True,
    ) -> Self:
        """Open a store.

        Args:
            teacher: Name of the teacher; None takes the only one.
            require_complete: Refuse a store that is still being written.

        Raises:
            IncompleteError: not complete; says how many shards are there.
            SchemaError: another schema, or metadata that contradict it.
            IdentityError: people or views were altered; names the field.
            CorruptError: bytes are missing, torn or altered.
        """
        folder = open_folder(path)
        entry = read_entry(folder, teacher)
        layout = layout_of(folder, entry)
        # before memory for the identity's sizes is reserved
        people, image_sha256 = read_people_of_plan(layout)
        views = StoredViewPlan(layout)
        manifest = read_manifest(layout, entry)
        if require_complete and not entry.is_complete:
            raise IncompleteError(
                f"{folder} must be complete, but has {int(manifest.is_present.sum())} of "
                f"{counted(len(manifest.is_present), 'shard')}; finish it by running cache-teacher "
                f"with --resume"
            )
        check_images(manifest, layout, image_sha256, people.image_index)
        return cls(layout, entry, people, image_sha256, views, manifest)

    @property
    def is_remote(self) -> bool:
        """Whether it is read over a network; then not by a process that was forked."""
        return self._layout.folder.is_remote

    @property
    def heatmap_dtype(self) -> "np.dtype[Any]":
        """Data type of the stored heatmaps.

        Raises:
            SchemaError: the store has none.
        """
        return np.dtype(self.require_heatmaps().dtype)

    def require_heatmaps(self) -> HeatmapProfile:
        """Return how heatmaps are stored.

        Raises:
            SchemaError: the store holds keypoints and confidences alone.
        """
        if not isinstance(self.profile, HeatmapProfile):
            raise SchemaError(
                f"{self.path} must hold heatmaps, but holds the keypoints and confidences of "
                f"{self.teacher} alone; write a store with another --profile than "
                f"{self.profile.name}"
            )
        return self.profile

    @property
    def heatmap_frame(self) -> HeatmapFrame:
        """Convention that maps crop pixels to heatmap cells.

        Raises:
            SchemaError: the teacher's identity does not name one.
        """
        frame = self.identity.teacher.get("heatmap_frame")
        if frame not in HEATMAP_FRAMES:
            known = " or ".join(HEATMAP_FRAMES)
            raise SchemaError(
                f"{self.path}: identity.teacher: 'heatmap_frame' must be {known}, got {frame!r}"
            )
        return cast(HeatmapFrame, frame)

    @property
    def flip_shift(self) -> int | None:
        """Whole cells that the flip test shifted mirrored heatmaps by; None: it was not done."""
        settings = self.identity.teacher
        return settings.get("flip_shift") or 0 if settings.get("flip_test") is True else None

    def present_instances(self) -> NDArray[np.int64]:
        """Return the rows of the people whose views all have status OK, in order: (n,) int64."""
        return np.flatnonzero((self.status == Status.OK).all(axis=1)).astype(np.int64)

    def read(
        self, instances: Indices, views: Indices, out: NDArray[Any] | None = None
    ) -> StoredViews:
        """Read B views with their heatmaps, each compared with its checksums.

        Args:
            instances: (B,) rows.
            views: (B,) in 0..V-1; view 0 is the plain evaluation crop.
            out: (B, K, Hh, Wh) of ``heatmap_dtype``, C order, to decode the heatmaps into; None: a
                new array.

        Raises:
            IndexError: a row or a view that the store does not have.
            IncompleteError: a view that was not written or failed; names its status.
            CorruptError: missing, torn or altered; names shard, row and view.
            SchemaError: the store has no heatmaps; ``read_keypoints`` reads what it has.
        """
        self.require_heatmaps()
        assert self._heatmaps is not None
        indices = self._check_indices(instances, views)
        status = self._check_status(indices)
        shape, dtype = (len(indices), *self._layout.dimensions.view_shape), self.heatmap_dtype
        heatmaps = np.empty(shape, dtype) if out is None else out
        if heatmaps.shape != shape or heatmaps.dtype != dtype or not heatmaps.flags.c_contiguous:
            got = f"{heatmaps.dtype} {heatmaps.shape}"
            raise ValueError(f"out must be {dtype} {shape} in C order, got {got}")
        records = self._heatmaps.read(indices, heatmaps)
        outputs = records["outputs"]
        return StoredViews(
            heatmaps=heatmaps,
            scale=outputs[..., 0].astype(np.float32),
            confidence=outputs[..., 1].astype(np.float32),
            keypoints=outputs[..., 2:].astype(np.float32),
            image_to_crop=records["image_to_crop"].astype(np.float64),
            is_mirrored=records["is_mirrored"].copy(),
            status=status,
        )

    def read_keypoints(self, instances: Indices, views: Indices) -> StoredKeypoints:
        """Read keypoints and confidences of B views, which every store has; no heatmap is decoded.

        Raises:
            IndexError, IncompleteError, CorruptError: as ``read``.
        """
        indices = self._check_indices(instances, views)
        return self._keypoints.read(indices, self._check_status(indices))

    def read_crops(self, instances: Indices, views: Indices) -> NDArray[np.uint8]:
        """Return the crops of B views, as the teacher's input was: (B, H, W, 3) uint8, RGB.

        Raises:
            SchemaError: the store was written without crops; and as ``read``.
        """
        wide_crops = self._read_stored_crops(instances, views)
        return np.ascontiguousarray(central_part(wide_crops, self.crop_margin_hw))

    def read_wide_crops(self, instances: Indices, views: Indices) -> WideCrops:
        """Return the crops of B views as stored, with their margin, and where they lie.

        The teacher's input is their central part, pixel for pixel. Without a margin they are it.

        Raises:
            SchemaError: the store was written without crops; and as ``read``.
        """
        wide_crops = self._read_stored_crops(instances, views)
        image_to_crop = self.read_image_to_crop(instances, views)
        return WideCrops(wide_crops, compose(crop_to_wide_crop(self.crop_margin_hw), image_to_crop))

    @property
    def crop_margin_hw(self) -> tuple[int, int]:
        """Pixels of the margin of the stored crops: above and below, and left and right."""
        crops = self.optional.crops
        return (0, 0) if crops is None else crops.margin_hw

    def _read_stored_crops(self, instances: Indices, views: Indices) -> NDArray[np.uint8]:
        indices = self._check_indices(instances, views)
        self._check_status(indices)
        return self._more.read_crops(indices, self.input_size_hw)

    def read_tokens(
        self, instances: Indices, views: Indices
    ) -> Mapping[str, NDArray[np.float32] | NDArray[np.float16]]:
        """Return the tokens of B unflipped views: ``keypoint`` (B, K, D), ``visual`` (B, P, D).

        Those stored as int8 are float32, those stored as float16 are as stored.

        Raises:
            SchemaError: the store was written without tokens; and as ``read``.
        """
        indices = self._check_indices(instances, views)
        self._check_status(indices)
        return self._more.read_tokens(indices)

    def read_image_to_crop(self, instances: Indices, views: Indices) -> NDArray[np.float64]:
        """Return the affines of B views, whatever their status: (B, 2, 3), mirroring included.

        Raises:
            IndexError: a row or a view that the store does not have.
            CorruptError: a file is missing or torn.
        """
        return self.views.read_image_to_crop(self._check_indices(instances, views))

    def close(self) -> None:
        """Close the files that this process has open; reading opens them again."""
        if self._heatmaps is not None:
            self._heatmaps.close()
        self._more.close()
        self.views.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_again, (
            self._layout.folder,
            self.teacher,
            self.fingerprint,
            self.content_sha256,
        )

    def _check_indices(self, instances: Indices, views: Indices) -> NDArray[np.int64]:
        """Return row * V + view of each."""
        rows, columns = (np.asarray(i) if len(i) else np.zeros(0, int) for i in (instances, views))
        is_whole = rows.dtype.kind in "iu" and columns.dtype.kind in "iu"
        if rows.ndim != 1 or rows.shape != columns.shape or not is_whole:
            raise IndexError(
                f"instances and views must be whole numbers of one length, got {rows.dtype} "
                f"{rows.shape} and {columns.dtype} {columns.shape}"
            )
        try:
            return np.ravel_multi_index((rows, columns), self.status.shape)
        except (ValueError, TypeError):
            pass
        for name, index, size in zip(
            ("instances", "views"), (rows, columns), self.status.shape, strict=True
        ):
            if index.min() < 0 or index.max() >= size:
                raise IndexError(
                    f"{name} must be in 0..{size - 1}, got {index.min()}..{index.max()}"
                )
        return rows.astype(np.int64) * self.num_views + columns.astype(np.int64)

    def _check_status(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the status of views, all of them OK."""
        if self._is_whole:
            return np.full(len(indices), int(Status.OK), np.uint8)
        status = self.status.ravel()[indices]
        is_missing = status != int(Status.OK)  # numpy takes five times as long for an enum
        if not is_missing.any():
            return status
        row, view = divmod(int(indices[is_missing.argmax()]), self.num_views)
        found = Status(int(self.status[row, view]))
        raise IncompleteError(
            f"{self.path}: shard {row // self._layout.dimensions.rows_per_shard}, row {row}, "
            f"view {view} must have status {int(Status.OK)} ({Status.OK.words}), got "
            f"{int(found)} ({found.words}); take rows of present_instances()"
        )


def _open_again(
    path: StoreFolder, teacher: str, fingerprint: str, content_sha256: str | None
) -> TeacherStore:
    """Open in another process the store that this one has open, and no other."""
    is_complete = content_sha256 is not None
    store = TeacherStore.open(path, teacher, require_complete=is_complete)
    is_same = not is_complete or store.content_sha256 == content_sha256
    if store.fingerprint != fingerprint or not is_same:
        raise IdentityError(
            f"{path} was replaced after it was opened: content was {content_sha256}, now it is "
            f"{store.content_sha256}; start again"
        )
    return store
