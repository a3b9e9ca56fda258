"""One process that writes shards of a teacher store: its teacher, its plan, any number of shards.

While the teacher looks at one shard, the one before is encoded and published, and the first images
of the next are decoded: the teacher waits for nobody. What is written depends on none of it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline.caching.breakdown import Breakdown, WorkClock
from pipeline.caching.encoded_rows import BadImage, EncodedRows
from pipeline.caching.teacher_pass import TeacherPass
from pipeline.cores import available_cores
from pipeline.teacher_store.opening import StoredPlan, read_plan
from pipeline.teacher_store.writer import TeacherStoreWriter
from pipeline.teachers.teacher import Teacher, TeacherSettings
from store_schemas.chunks import Run
from store_schemas.manifest import ShardReceipt, digest_of_images

OnProgress = Callable[[int], None]
"""Told how many views were added."""


@dataclass(frozen=True)
class ShardTask:
    """All that decides what a shard holds; the same for every process, and picklable."""

    writer: TeacherStoreWriter
    teacher: Path
    teacher_settings: TeacherSettings
    images: Path
    skip_bad: bool
    """Write shards without the people of unreadable images; else such a shard is held back."""


@dataclass(frozen=True)
class ShardOutcome:
    """What became of one shard."""

    shard: int
    receipt: ShardReceipt | None
    """None: the shard was held back, as images could not be read."""
    bad_images: tuple[BadImage, ...]
    breakdown: Breakdown = field(default_factory=Breakdown, compare=False)
    """What this process did since it yielded the outcome before."""


class ShardWorker:
    """A process's teacher and plan, loaded once."""

    def __init__(
        self,
        task: ShardTask,
        teacher: Teacher,
        plan: StoredPlan,
        num_threads: int | None = None,
        num_looks: int | None = None,
    ) -> None:
        """Open threads for each kind of work.

        num_threads: beside the teacher's; None: as many as there are cores.
        num_looks: batches that the teacher looks at at a time; None: as many as keep so many
            cores busy.
        """
        self._task = task
        self._plan = plan
        self._num_threads = num_threads or available_cores()
        num_looks = num_looks or teacher.looks_at_a_time(self._num_threads)
        self._clock = WorkClock(num_looks)
        self._pass = TeacherPass(
            teacher,
            plan.people,
            task.images,
            plan.views.image_to_crop,
            plan.image_sha256,
            task.writer.threshold,
            task.writer.profile,
            self._num_threads,
            num_looks,
            self._clock.measure,
            self._clock.teacher_at_work,
            task.writer.layout.dimensions.optional,
        )

    def write_shard(self, shard: int, on_progress: OnProgress = lambda _: None) -> ShardOutcome:
        """Write one shard; several threads may, and then keep the teacher at work together.

        Raises:
            LeaseError: another run took the store over.
        """
        (outcome,) = self.write_shards([shard], on_progress)
        return outcome

    def write_shards(
        self,
        shards: Iterable[int],
        on_progress: OnProgress = lambda _: None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> Iterator[ShardOutcome]:
        """Show the teacher the people of shards, publish what it says, and yield in order.

        A shard is published in the background, one at a time: the next one is held until it is
        done, and if it fails, never published.

        shards: taken a little ahead.
        is_stopping: asked between shards; once true, those that the teacher saw whole are finished.

        Raises:
            LeaseError: another run took the store over.
        """
        begun: deque[int] = deque()

        def ranges() -> Iterator[range]:
            for shard in shards:
                begun.append(shard)
                yield self._task.writer.shard_rows(shard)

        publishing: Future[ShardOutcome] | None = None
        with (
            ThreadPoolExecutor(self._num_threads, "compress") as pool,
            ThreadPoolExecutor(1, "publish") as publisher,
            closing(self._pass.encode(ranges(), on_progress)) as stream,
        ):
            try:
                for encoded in stream:
                    former, publishing = publishing, None
                    if former is not None:
                        yield former.result()
                    shard = begun.popleft()
                    publishing = publisher.submit(self._publish, shard, encoded, pool)
                    del encoded  # the next shard's arrays are as large
                    if is_stopping():
                        break
                if publishing is not None:
                    former, publishing = publishing, None
                    yield former.result()
            except BaseException as error:
                if publishing is not None and (other := publishing.exception()) is not None:
                    error.add_note(f"the shard before could not be published either: {other}")
                raise

    def _publish(self, shard: int, encoded: EncodedRows, pool: ThreadPoolExecutor) -> ShardOutcome:
        task, plan = self._task, self._plan
        bad_images = tuple(encoded.bad_images)
        if bad_images and not task.skip_bad:
            return ShardOutcome(shard, None, bad_images, self._clock.lap())
        images = plan.people.image_index[encoded.rows.start : encoded.rows.stop]
        with self._clock.measure("write"):
            receipt = task.writer.write_shard(
                shard,
                encoded.heatmaps,
                encoded.outputs,
                encoded.status,
                digest_of_images(plan.image_sha256, images),
                encoded.codec_error,
                run=self._in_threads(pool),
                optional=encoded.optional,
            )
        return ShardOutcome(shard, receipt, bad_images, self._clock.lap())

    def _in_threads(self, pool: ThreadPoolExecutor) -> Run:
        def run(
            encode: Callable[[NDArray[Any]], bytes], views: Iterable[NDArray[Any]]
        ) -> Iterator[bytes]:
            def measured(view: NDArray[Any]) -> bytes:
                with self._clock.measure("encode"):
                    return encode(view)

            return pool.map(measured, views)

        return run


def read_writers_plan(writer: TeacherStoreWriter) -> StoredPlan:
    """Return people and views as the store has them now."""
    return read_plan(writer.layout)
