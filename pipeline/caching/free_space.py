"""Space for a store: what is free at its location, and a refusal before hours are spent in vain."""

import shutil
from pathlib import Path

from pipeline.storage.object_client import is_object_location
from pipeline.wording import Log
from store_schemas.errors import StoreError

_LEAST_SHARE = 0.5
"""Share of a typical store's bytes that one takes at least: teachers' heatmaps differ."""


def free_space(store: str) -> tuple[int | None, str]:
    """Return the free bytes at a store's location, None for an object store; and a description."""
    if is_object_location(store):
        return None, f"at {store}"
    path = Path(store).absolute()
    existing = next(p for p in (path, *path.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    return free, f"{in_bytes(free)} free at {existing}"


def check_free_space(num_bytes: float, store: str, log: Log) -> None:
    """Refuse a store that cannot fit, and say when one may not.

    num_bytes: bytes of a typical store of this size.

    Raises:
        StoreError: half of them are not free; nothing was written.
    """
    free, where = free_space(store)
    if free is None or num_bytes <= free:
        return
    what = f"{store} needs about {in_bytes(num_bytes)} (from typical stores), {where}"
    ways_out = "choose another --store, fewer --views, --profile small, or --profile keypoints"
    if _LEAST_SHARE * num_bytes > free:
        raise StoreError(f"{what}; {ways_out}")
    log(f"THE DISK MAY BE TOO SMALL: {what}; --plan measures it")


def in_bytes(num_bytes: float) -> str:
    """Return a number of bytes in GB, or in MB below one."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
