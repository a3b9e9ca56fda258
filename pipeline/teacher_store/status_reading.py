"""What became of every view, compared with the manifest."""

import numpy as np
from numpy.typing import NDArray

from pipeline.teacher_store.layout import StoreLayout
from pipeline.teacher_store.manifest import Manifest
from pipeline.teacher_store.manifest_files import ManifestFiles
from store_schemas.chunks import RESTORE
from store_schemas.errors import CorruptError
from store_schemas.teacher_store import Status


def read_status(layout: StoreLayout, manifest: Manifest, files: ManifestFiles) -> NDArray[np.uint8]:
    """Return the status of every view: (N, V) uint8, read-only; of absent shards NOT_WRITTEN.

    Raises:
        CorruptError: a file is missing, torn or altered, or contradicts the manifest; names shard
            and rows.
    """
    dimensions = layout.dimensions
    status = np.zeros((dimensions.num_instances, dimensions.num_views), np.uint8)
    for shard in np.flatnonzero(manifest.is_present).tolist():
        rows = dimensions.shard_rows(shard)
        if layout.folder.is_remote and manifest.status_counts[shard, Status.OK] == (
            len(rows) * dimensions.num_views
        ):
            status[rows.start : rows.stop] = Status.OK  # a request per shard would take long
            continue
        where = f"{layout.folder}: shard {shard}, rows {rows.start} to {rows.stop - 1}"
        try:
            found = files.read_rows("status", shard)
        except CorruptError as error:
            raise CorruptError(f"{where}: {error}") from error
        counts = np.bincount(found.ravel(), minlength=len(Status))
        if counts.tolist() != manifest.status_counts[shard].tolist():
            raise CorruptError(
                f"{where}: views by status must be {manifest.status_counts[shard].tolist()}, "
                f"got {counts.tolist()}{RESTORE}"
            )
        status[rows.start : rows.stop] = found
    status.flags.writeable = False
    return status
