"""The views of a stored plan: compared with the identity on opening, then read row by row.

The affines of a large store, 48 bytes a view, are more than a loader's worker may hold, so they are
kept only by a process that reads the whole array.
"""

import os
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.teacher_store.opening import StoreLayout
from pipeline.teacher_store.plan import check_mirrored
from pipeline.teacher_store.shard_files import StoredFile
from store_schemas.checking import check_digests
from store_schemas.chunks import plain_chunk_bytes
from store_schemas.errors import SchemaError
from store_schemas.identity import begin_array_sha256
from store_schemas.reading import read_array, read_chunks

MAX_OPEN_CHUNKS = 64
"""Open files of 65,536 people each."""
AFFINE_BYTES = 48


class StoredViewPlan:
    """The views of every person: a ``ViewPlan`` whose arrays are read on first use."""

    def __init__(self, layout: StoreLayout) -> None:
        """Compare the arrays with the identity, a chunk at a time.

        Raises:
            IdentityError: an array was altered; names the field.
            SchemaError: metadata or arrays contradict schema or identity.
            CorruptError: bytes are missing, torn or altered.
        """
        section = layout.identity.views
        self.input_size_hw = section.input_size_hw
        """Size of the crop that the affines lead to."""
        self.seed = section.seed
        self.recipe = section.recipe
        """Settings under which the views were drawn."""
        self._folder = layout.folder
        self._affines = layout.specs["views/image_to_crop"]
        self._mirrored = layout.specs["views/is_mirrored"]
        self._process = os.getpid()
        self._files: dict[int, StoredFile] = {}
        """Open files by chunk, the first opened first."""
        self._views_per_chunk = self._affines.rows_per_chunk * self._affines.shape[1]
        self._check(layout)

    @cached_property
    def image_to_crop(self) -> NDArray[np.float64]:
        """(N, V, 2, 3), mirroring included; view 0 is plain. Read whole and kept."""
        return read_array(self._folder, self._affines)

    @cached_property
    def is_mirrored(self) -> NDArray[np.bool_]:
        """(N, V), true where the determinant is negative. Read whole and kept."""
        return read_array(self._folder, self._mirrored)

    def read_image_to_crop(self, views: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the affines of B views that the store has: (B, 2, 3).

        Args:
            views: (B,), row * V + view.

        Raises:
            CorruptError: a file is missing or torn.
        """
        stored = b"".join(map(self.read_affine, views.tolist()))
        return np.frombuffer(stored, "<f8").reshape(-1, 2, 3).astype(np.float64)

    def read_affine(self, view: int) -> bytes:
        """Return the affine of row * V + view as stored: ``AFFINE_BYTES``.

        Raises:
            CorruptError: a file is missing or torn.
        """
        chunk, place = divmod(view, self._views_per_chunk)
        return self._pread(chunk, place, 1)

    def read_rows(self, rows: range) -> bytes:
        """Return the affines of all views of some people, 48 bytes each.

        Raises:
            CorruptError: a file is missing or torn.
        """
        num_views, per_chunk = self._affines.shape[1], self._affines.rows_per_chunk
        found = []
        for chunk in range(rows.start // per_chunk, (rows.stop - 1) // per_chunk + 1):
            there = self._affines.chunk_rows(chunk)
            first, stop = max(rows.start, there.start), min(rows.stop, there.stop)
            place = (first - there.start) * num_views
            found.append(self._pread(chunk, place, (stop - first) * num_views))
        return b"".join(found)

    def close(self) -> None:
        """Close the files of this process; reading opens them again."""
        while self._files:
            self._files.popitem()[1].close()

    def _pread(self, chunk: int, place: int, count: int) -> bytes:
        """Return the affines of views that follow each other in a chunk."""
        if self._process != os.getpid():
            self.close()  # the parent's, which this process inherited as copies
            self._process = os.getpid()
        if chunk not in self._files:
            self._open(chunk)
        return self._files[chunk].read(count * AFFINE_BYTES, place * AFFINE_BYTES)

    def _open(self, chunk: int) -> None:
        file = StoredFile.open(
            self._folder, self._affines.chunk_name(chunk), plain_chunk_bytes(self._affines)
        )
        if len(self._files) >= MAX_OPEN_CHUNKS:
            self._files.pop(next(iter(self._files))).close()
        self._files[chunk] = file

    def _check(self, layout: StoreLayout) -> None:
        specs = (self._affines, self._mirrored)
        digests = [begin_array_sha256(spec.dtype, spec.shape) for spec in specs]
        contradiction: SchemaError | None = None
        pairs = zip(*(read_chunks(self._folder, spec) for spec in specs), strict=True)
        for chunk, (affines, mirrored) in enumerate(pairs):
            for digest, values in zip(digests, (affines, mirrored), strict=True):
                digest.update(values.data.cast("B"))
            try:
                check_mirrored(affines, mirrored, self._affines.chunk_rows(chunk).start)
            except SchemaError as error:
                contradiction = contradiction or error
        found = {s.path: d.hexdigest() for s, d in zip(specs, digests, strict=True)}
        check_digests(
            layout, found
        )  # first: an altered array is the cause, a contradiction follows
        if contradiction is not None:
            raise contradiction

    def __del__(self) -> None:
        if getattr(self, "_files", None):
            self.close()
