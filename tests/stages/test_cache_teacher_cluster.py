"""Laws of stage one on a given cluster: whoever writes the shards, the store is the same."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import distributed
import pytest

from pipeline import teachers
from pipeline.caching import admission, cluster, shard_worker
from pipeline.caching.engines import EngineChoice
from pipeline.caching.shard_worker import ShardOutcome, ShardWorker
from pipeline.errors import ClusterError, ImageError, Stopped
from pipeline.teachers import Teacher
from stages.cache_teacher import cache_teacher
from store_schemas.errors import CorruptError
from tests.support.interruption import interrupt_after_the_first_shard

pytestmark = pytest.mark.usefixtures("hurried_cluster")


@pytest.fixture
def scheduler() -> Iterator[EngineChoice]:
    """A cluster of two workers that are threads of this process: what is patched here holds."""
    local: Any = distributed.LocalCluster
    with local(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        dashboard_address="127.0.0.1:0",  # another test run may have the usual port
        worker_dashboard_address=None,
        silence_logs=50,
    ) as started:
        yield EngineChoice(scheduler=started.scheduler_address)


@pytest.fixture
def written_here(inputs: Any) -> dict[str, str]:
    """What the plain loop writes."""
    config = inputs.config(store=str(inputs.folder / "here.zarr"))
    cache_teacher(config)
    return inputs.digests(Path(config.store))


@contextmanager
def every_shard(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None]
) -> Iterator[Counter[int]]:
    """Do something before every shard, and count how often each was tried."""
    write, tries = ShardWorker.write_shard, Counter[int]()

    def spied(self: ShardWorker, shard: int, *rest: Any) -> ShardOutcome:
        tries[shard] += 1
        before(shard)
        return write(self, shard, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(ShardWorker, "write_shard", spied)
        yield tries


def worker_name() -> str:
    return str(distributed.get_worker().name)


def test_a_cluster_writes_the_bytes_of_the_plain_loop(
    inputs: Any, scheduler: EngineChoice, written_here: dict[str, str]
) -> None:
    said: list[str] = []
    cache_teacher(inputs.config(), engine_choice=scheduler, say=said.append)
    assert inputs.digests() == written_here
    assert said[0].startswith("cluster: 2 workers at tcp://")


def test_a_worker_has_two_shards_at_most_and_opens_the_teacher_once(
    inputs: Any, scheduler: EngineChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[int] = []
    opened: list[str] = []
    submit, open_teacher = cluster._Run._submit, teachers.open_teacher

    def spied_submit(self: Any, *arguments: Any) -> None:
        submit(self, *arguments)
        loads.append(max(Counter(worker for _, worker, _ in self._running.values()).values()))

    def spied_open(*arguments: Any) -> Teacher:
        opened.append(worker_name())
        return open_teacher(*arguments)

    monkeypatch.setattr(cluster._Run, "_submit", spied_submit)
    monkeypatch.setattr(teachers, "open_teacher", spied_open)
    cache_teacher(inputs.config(), engine_choice=scheduler)
    assert max(loads) == cluster.SHARDS_PER_WORKER == 2
    assert sorted(opened) == ["0", "1"]


def test_an_io_error_is_tried_again_and_leaves_no_trace(
    inputs: Any,
    scheduler: EngineChoice,
    monkeypatch: pytest.MonkeyPatch,
    written_here: dict[str, str],
) -> None:
    def fail_thrice(shard: int) -> None:
        if shard == 1 and tries[1] <= cluster.MAX_RETRIES:
            raise OSError(5, "Input/output error")

    said: list[str] = []
    with every_shard(monkeypatch, fail_thrice) as tries:
        cache_teacher(inputs.config(), engine_choice=scheduler, say=said.append)
    assert tries[1] == 4
    assert set(tries.values()) == {1, 4}
    assert sum("shard 1 again: worker tcp://" in line for line in said) == 3
    assert inputs.digests() == written_here


def test_an_io_error_that_stays_ends_the_run_and_names_shard_and_worker(
    inputs: Any, scheduler: EngineChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(shard: int) -> None:
        if shard == 1:
            raise OSError(5, "Input/output error")

    with (
        every_shard(monkeypatch, fail) as tries,
        pytest.raises(
            ClusterError, match=r"shard 1 failed 4 times.* worker tcp://.*\[Errno 5\].*--resume"
        ),
    ):
        cache_teacher(inputs.config(), engine_choice=scheduler)
    assert tries[1] == 1 + cluster.MAX_RETRIES == 4


@pytest.mark.parametrize("error", [CorruptError("torn"), ImageError("torn"), TypeError("torn")])
def test_what_another_try_cannot_mend_is_not_tried_again(
    inputs: Any, scheduler: EngineChoice, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(shard: int) -> None:
        if shard == 1:
            raise error

    with every_shard(monkeypatch, fail) as tries, pytest.raises(type(error), match="torn"):
        cache_teacher(inputs.config(), engine_choice=scheduler)
    assert tries[1] == 1


def test_a_worker_with_another_library_is_refused_by_name_and_its_shards_go_to_others(
    inputs: Any,
    scheduler: EngineChoice,
    monkeypatch: pytest.MonkeyPatch,
    written_here: dict[str, str],
) -> None:
    report = admission.software

    def differing() -> dict[str, str]:
        try:
            is_other = worker_name() == "1"
        except ValueError:  # the coordinator
            is_other = False
        return {**report(), "numpy": "1.2.3"} if is_other else report()

    wrote: set[str] = set()
    said: list[str] = []
    monkeypatch.setattr(admission, "software", differing)
    with every_shard(monkeypatch, lambda _: wrote.add(worker_name())):
        cache_teacher(inputs.config(), engine_choice=scheduler, say=said.append)
    assert wrote == {"0"}
    (refusal,) = [line for line in said if line.startswith("refused")]
    assert refusal.startswith("refused: worker tcp://")
    assert (
        f"(1): numpy must be {report()['numpy']}, got 1.2.3; its shards go to other workers"
        in refusal
    )
    assert inputs.digests() == written_here


def test_a_cluster_whose_workers_see_another_teacher_writes_nothing(
    inputs: Any, scheduler: EngineChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is replaced behind the coordinator's back, as under another mount."""
    read_plan = shard_worker.read_writers_plan
    done: list[str] = []
    writing = threading.Lock()  # both workers replace it, and neither may read half a file

    def replace_teacher(writer: Any) -> Any:
        with writing:
            if "replaced" not in done:
                inputs.write_teacher(seed=1)
                done.append("replaced")
        return read_plan(writer)

    monkeypatch.setattr(shard_worker, "read_writers_plan", replace_teacher)
    with (
        every_shard(monkeypatch, lambda _: None) as tries,
        pytest.raises(
            ClusterError,
            match=r"no worker may write this store: worker tcp://.*teacher\.onnx must have sha256 "
            r"[0-9a-f]{12}, got [0-9a-f]{12}.*worker tcp://",
        ),
    ):
        cache_teacher(inputs.config(), engine_choice=scheduler)
    assert not tries


def test_a_cluster_whose_workers_see_other_images_writes_nothing(
    inputs: Any, scheduler: EngineChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "sha256_file", lambda _: "ab" * 32)
    with pytest.raises(ClusterError, match=r"image .*jpg must have sha256 .*, got abababababab"):
        cache_teacher(inputs.config(), engine_choice=scheduler)


def test_an_interrupted_cluster_finishes_what_runs_and_the_plain_loop_goes_on(
    inputs: Any,
    scheduler: EngineChoice,
    monkeypatch: pytest.MonkeyPatch,
    written_here: dict[str, str],
) -> None:
    interrupt_after_the_first_shard(monkeypatch)
    with (
        every_shard(monkeypatch, lambda _: None) as tries,
        pytest.raises(Stopped, match=r" has \d of \d shards?: continue"),
    ):
        cache_teacher(inputs.config(), engine_choice=scheduler)
    said: list[str] = []
    cache_teacher(inputs.config(), resume=True, say=said.append)
    assert any(line.startswith(f"resuming: {len(tries)} of") for line in said)
    assert inputs.digests() == written_here


def test_a_cluster_goes_on_with_what_the_plain_loop_left(
    inputs: Any,
    scheduler: EngineChoice,
    monkeypatch: pytest.MonkeyPatch,
    written_here: dict[str, str],
) -> None:
    interrupt_after_the_first_shard(monkeypatch)
    with pytest.raises(Stopped):
        cache_teacher(inputs.config())
    with every_shard(monkeypatch, lambda _: None) as tries:
        cache_teacher(inputs.config(), resume=True, engine_choice=scheduler)
    assert 0 not in tries
    assert inputs.digests() == written_here
