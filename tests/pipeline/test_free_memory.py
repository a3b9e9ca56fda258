"""Free memory, as Linux and its control groups tell it."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.machine import free_memory

MIB = 1 << 20


def write(root: Path, files: Mapping[str, object]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


MEMINFO: dict[str, object] = {
    "proc/meminfo": "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable: 4096 kB"
}


def test_it_is_what_the_system_calls_available(tmp_path: Path) -> None:
    assert free_memory(write(tmp_path, MEMINFO)) == 4 * MIB


def test_a_system_that_does_not_say_is_unknown(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None


@pytest.mark.parametrize(("limit", "expected"), [(3 * MIB, 1.5 * MIB), ("max", 4 * MIB)])
def test_a_containers_limit_counts_without_files_that_can_be_dropped(
    limit: object, expected: int, tmp_path: Path
) -> None:
    group = "sys/fs/cgroup/jobs/one"
    files = {
        **MEMINFO,
        "proc/self/cgroup": "0::/jobs/one",
        f"{group}/memory.max": limit,
        f"{group}/memory.current": 2 * MIB,
        f"{group}/memory.stat": f"anon 7\ninactive_file {MIB // 2}",
    }
    assert free_memory(write(tmp_path, files)) == expected


def test_the_limit_of_a_group_above_counts_too(tmp_path: Path) -> None:
    files = {
        **MEMINFO,
        "proc/self/cgroup": "0::/jobs/one",
        "sys/fs/cgroup/jobs/one/memory.max": "max",
        "sys/fs/cgroup/jobs/one/memory.current": MIB,
        "sys/fs/cgroup/jobs/memory.max": 3 * MIB,
        "sys/fs/cgroup/jobs/memory.current": 2 * MIB,
    }
    assert free_memory(write(tmp_path, files)) == MIB


def test_a_container_that_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    files = {
        **MEMINFO,
        "proc/self/cgroup": "0::/outside/unseen",
        "sys/fs/cgroup/memory.max": 3 * MIB,
        "sys/fs/cgroup/memory.current": 4 * MIB,
    }
    assert free_memory(write(tmp_path, files)) == 0


def test_control_groups_of_version_one_are_read(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory/jobs"
    files = {
        **MEMINFO,
        "proc/self/cgroup": "5:cpu,cpuacct:/jobs\n4:memory:/jobs\n0::/",
        f"{group}/memory.limit_in_bytes": 3 * MIB,
        f"{group}/memory.usage_in_bytes": 2 * MIB,
        f"{group}/memory.stat": f"inactive_file 1\ntotal_inactive_file {MIB}",
    }
    assert free_memory(write(tmp_path, files)) == 2 * MIB
