"""Writes shards of a teacher store: one process with its teacher and the store's plan.

While the teacher predicts one shard, the one before is encoded and published, and the first images
of the next one are decoded, so that the teacher does not wait. The bytes do not depend on it.
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
from pipeline.caching.prediction_stream import BadImage, EncodedRows, OnProgress, PredictionStream
from pipeline.machine import available_cores
from pipeline.settings import TeacherSettings
from pipeline.teacher_store.plan import StoredPlan
from pipeline.teacher_store.writer import TeacherStoreWriter
from pipeline.teachers.teacher import Teacher
from store_schemas.manifest import ShardReceipt, digest_of_images


@dataclass(frozen=True)
class ShardTask:
    """All that decides the bytes of a shard; the same for every process, and picklable."""

    writer: TeacherStoreWriter
    teacher: Path
    teacher_settings: TeacherSettings
    images: Path
    skip_bad: bool
    """Write shards without the people of unreadable images; else such shards are held back."""


@dataclass(frozen=True)
class ShardOutcome:
    """Result of one shard."""

    shard: int
    receipt: ShardReceipt | None
    """Receipt of the files; None: the shard was held back, as images could not be read."""
    bad_images: tuple[BadImage, ...]
    breakdown: Breakdown = field(default_factory=Breakdown, compare=False)
    """Time of this process since the outcome before."""


class ShardWorker:
    """A process's teacher and plan, loaded once for any number of shards."""

    def __init__(
        self,
        task: ShardTask,
        teacher: Teacher,
        plan: StoredPlan,
        num_threads: int | None = None,
        num_parallel: int | None = None,
    ) -> None:
        """Prepare to write shards of a task.

        num_threads: threads of each kind of work beside the teacher's; None: one for each core.
        num_parallel: batches that the teacher predicts at a time; None: as many as keep
            ``num_threads`` cores busy.
        """
        self._task = task
        self._plan = plan
        self._num_threads = num_threads or available_cores()
        num_parallel = num_parallel or teacher.batches_at_a_time(self._num_threads)
        self._clock = WorkClock(num_parallel)
        self._predictions = PredictionStream(
            teacher,
            plan,
            task.images,
            task.writer.layout.dimensions,
            task.writer.threshold,
            self._clock,
            self._num_threads,
            num_parallel,
        )

    def write_shard(self, shard: int, on_progress: OnProgress = lambda _: None) -> ShardOutcome:
        """Write one shard; several threads may do so at a time with the same teacher.

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
        """Predict the views of shards, publish them encoded, and yield the outcomes in order.

        Shards are published in the background, one at a time: the next one waits until the one
        before is published, and is not published if that fails.

        shards: iterated a little ahead.
        is_stopping: called between shards; once it returns True, the shards whose views are all
            predicted are published, and no others.

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
            closing(self._predictions.encoded_rows(ranges(), on_progress)) as stream,
        ):
            try:
                for encoded in stream:
                    former, publishing = publishing, None
                    if former is not None:
                        with self._clock.waiting_for("writing"):
                            outcome = former.result()
                        yield outcome
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

        def run(
            encode: Callable[[NDArray[Any]], bytes], views: Iterable[NDArray[Any]]
        ) -> Iterator[bytes]:
            def measured(view: NDArray[Any]) -> bytes:
                with self._clock.measure("encode"):
                    return encode(view)

            return pool.map(measured, views)

        with self._clock.measure("write"):
            receipt = task.writer.write_shard(
                shard,
                encoded.heatmaps,
                encoded.outputs,
                encoded.status,
                digest_of_images(plan.image_sha256, images),
                encoded.errors.heat,
                run=run,
                optional=encoded.optional,
                token_error=encoded.errors.tokens,
            )
        return ShardOutcome(shard, receipt, bad_images, self._clock.lap())
