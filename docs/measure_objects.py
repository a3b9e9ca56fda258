"""Read a local teacher store from an S3 server of this machine: views per second of client CPU.

    python -m docs.measure_objects teacher.zarr

Takes a complete store, and prints the figures of docs/object-stores.md. The server (moto) is
another process, whose time does not count. Needs the development dependencies and the extra
`objects`.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.storage.folder import StoreFolder, open_folder
from pipeline.teacher_store.cached_folder import open_for_reading
from pipeline.teacher_store.reader import TeacherStore
from pipeline.training.view_order import BlockOrder, ViewOrder

BATCH_SIZE = 64
ROUNDS = 3
PLACE = "s3://bucket/teacher.zarr"
SERVER = """
import sys
from tests.support.object_server import start_server
print(start_server().url, flush=True)
sys.stdin.read()
"""


def read_all(location: StoreFolder, *, in_blocks: bool) -> str:
    """Read every augmented view of every person once, and return a line of speeds."""
    store = TeacherStore.open(location)
    rows, num_views = store.present_instances(), store.num_views - 1
    order = (
        BlockOrder(rows, store.rows_per_shard, num_views, BATCH_SIZE, 0)
        if in_blocks
        else ViewOrder(rows, store.people.instance_id[rows], num_views, BATCH_SIZE, 0)
    )
    shape = (BATCH_SIZE, len(store.people.skeleton.keypoint_names), *store.heatmap_size_hw)
    out, count = np.empty(shape, store.heatmap_dtype), 0
    wall, cpu = time.perf_counter(), cpu_seconds()
    for epoch in range(num_views):
        for batch in order.batches(epoch):
            store.read(*batch, out[: len(batch.views)])
            count += len(batch.views)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    store.close()
    return f"{count} views, {count / cpu:.0f} per CPU second, {count / wall:.0f} per second"


def cpu_seconds() -> float:
    """Return the CPU seconds of this process, obstore's threads included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(path: str) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
    )
    assert server.stdin is not None
    assert server.stdout is not None
    os.environ |= {
        "AWS_ENDPOINT_URL": server.stdout.readline().strip(),
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    local, remote = open_folder(path), open_folder(PLACE)
    for name in local.names():
        remote.publish(name, local.read(name, 1 << 32))
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(ROUNDS):
            print("object store, blocks:  ", read_all(remote, in_blocks=True))
            print("folder, blocks:        ", read_all(local, in_blocks=True))
            cached = open_for_reading(remote, Path(cache))
            print("cached, shuffled:      ", read_all(cached, in_blocks=False))
            print("folder, shuffled:      ", read_all(local, in_blocks=False))
    server.stdin.close()
    server.wait()


if __name__ == "__main__":
    main(sys.argv[1])
