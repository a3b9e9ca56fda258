"""One process that writes shards of a teacher store: its teacher, its plan, one shard at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.teacher_store.manifest import ShardReceipt, digest_of_images
from pipeline.teacher_store.opening import StoredPlan, read_plan
from pipeline.teacher_store.writer import TeacherStoreWriter
from pipeline.teachers.teacher import Teacher, TeacherSettings
from pipeline.teachers.teacher_pass import BadImage, encode_rows


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


class ShardWorker:
    """A process's teacher and plan, loaded once."""

    def __init__(self, task: ShardTask, teacher: Teacher, plan: StoredPlan) -> None:
        self._task = task
        self._teacher = teacher
        self._plan = plan

    def write_shard(
        self, shard: int, on_progress: Callable[[int], None] = lambda _: None
    ) -> ShardOutcome:
        """Show the teacher a shard's people and publish what it says.

        on_progress: told how many views were added.

        Raises:
            LeaseError: another run took the store over.
        """
        task, plan = self._task, self._plan
        rows = task.writer.shard_rows(shard)
        encoded = encode_rows(
            self._teacher,
            plan.people,
            task.images,
            plan.views.image_to_crop,
            rows,
            task.writer.threshold,
            task.writer.profile.dtype,
            on_progress=on_progress,
        )
        bad_images = tuple(encoded.bad_images)
        if bad_images and not task.skip_bad:
            return ShardOutcome(shard, None, bad_images)
        receipt = task.writer.write_shard(
            shard,
            encoded.heatmaps,
            encoded.outputs,
            encoded.status,
            digest_of_images(plan.image_sha256, plan.people.image_index[rows.start : rows.stop]),
            encoded.codec_error,
        )
        return ShardOutcome(shard, receipt, bad_images)


def read_writers_plan(writer: TeacherStoreWriter) -> StoredPlan:
    """Return people and views as the store has them now."""
    return read_plan(writer.layout, writer.entry.identity)
