"""Teacher store, teacher, images -> the same store, its damaged shards repaired.

Metadata that follow from other bytes are repaired first. Then a complete store is reopened without
its damaged shards, and the teacher predicts them as under ``cache-teacher --resume``: after a kill
either command finishes the store.
"""

from dataclasses import dataclass, replace

from pipeline.caching.prediction_stream import BadImage, describe_bad_images
from pipeline.caching.shard_worker import ShardTask, ShardWorker
from pipeline.coco.read_everyone import read_everyone, recorded_settings
from pipeline.errors import ConfigError, ImageError
from pipeline.progress import NO_PROGRESS, Progress, ShardProgress
from pipeline.repair.metadata import repair_documents, repair_image_digests, repair_manifest
from pipeline.repair.recomputation import source_path
from pipeline.repair.shards import ShardRepair, plan_shard_repair, reopen_store
from pipeline.storage.folder import open_folder
from pipeline.storage.lease import acquire_lease
from pipeline.teacher_store.people_comparison import compare_people
from pipeline.teacher_store.plan import StoreLayout, layout_of, read_plan
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teacher_store.recovery import bad_shards
from pipeline.teacher_store.writer import TeacherStoreWriter
from pipeline.teachers import Teacher
from pipeline.teachers.stored_teacher import open_stored_teacher
from pipeline.wording import Log, counted
from stages.settings.evaluation import StoreRepairConfig
from store_schemas.errors import StoreError
from store_schemas.manifest import Manifest, read_manifest
from store_schemas.metadata import compare_identity
from store_schemas.root_metadata import TeacherEntry, read_entry
from store_schemas.teacher_store import Status


@dataclass(frozen=True)
class RepairResult:
    """Result of a repair."""

    store: str
    repaired_parts: tuple[str, ...]
    """Paths of the groups and arrays that were written again."""
    repaired_shards: tuple[int, ...]
    """Shards that the teacher predicted again."""
    content_sha256: str
    missing_people: tuple[int, ...]
    """Instance ids of people without outputs."""


def store_repair(
    config: StoreRepairConfig,
    *,
    take_over: bool = False,
    progress: Progress = NO_PROGRESS,
    say: Log = lambda _: None,
) -> RepairResult:
    """Repair exactly the damaged or missing parts of a store, and finish it.

    take_over: replace another run that seems to be writing this store.

    Raises:
        StoreError: there is no store; a damaged part cannot be computed from others; or teacher,
            people or images are not those of the store.
        ConfigError: teacher or images are needed, and are not where they were.
        ImageError: an image that is needed cannot be read.
    """
    folder = open_folder(config.store)
    read_entry(folder, config.teacher_name)  # before a lease makes a folder where there is none
    with acquire_lease(folder, take_over=take_over) as lease:
        folder.sweep()
        entry = read_entry(folder, config.teacher_name)
        layout = layout_of(folder, entry)
        repaired = repair_documents(layout, entry, lease.run_id)
        if entry.is_complete:
            repaired += repair_manifest(layout, entry, lease.run_id)
        images = source_path(entry.provenance, "images", config.images)
        bad_receipts: dict[int, StoreError] = {}
        manifest = read_manifest(layout, entry, bad_receipts)
        accept = config.accept_mended_images
        repaired += repair_image_digests(layout, manifest, images, lease.run_id, accept=accept)
        plan = read_plan(layout)
        if config.annotations is not None:
            settings = recorded_settings(entry.provenance, config.detections)
            compare_people(plan.people, read_everyone(config.annotations, None, settings).people)
        for name in repaired:
            say(f"repaired: {name}")

        faults = {shard: [str(error)] for shard, error in bad_receipts.items()}
        faults |= bad_shards(layout, manifest, plan)
        todo = plan_shard_repair(
            layout, manifest, plan, faults, images, accept_mended_images=accept
        )
        for note in todo.notes:
            say(note)
        for shard, reason in todo.reasons.items():
            say(f"repairing shard {shard}: {reason}")
        if todo.reasons:
            path = source_path(entry.provenance, "teacher", config.teacher)
            if path is None or images is None:
                raise ConfigError(
                    f"{folder}: {counted(len(todo.reasons), 'shard')} must be written again, but "
                    "the teacher is not where it was; name it with --teacher"
                )
            teacher = open_stored_teacher(path, entry.identity, entry.execution_recipe)
            writer = _reopen(config, layout, entry, manifest, todo, teacher, lease.run_id)
            task = ShardTask(writer, path, teacher.settings, images, False)
            _write_shards(task, teacher, todo, progress)
        else:
            writer = TeacherStoreWriter(layout, entry, lease.run_id)
        content_sha256 = writer.finish()
    store = TeacherStore.open(folder, entry.teacher)
    is_missing = (store.status == Status.IMAGE_UNREADABLE).any(axis=1)
    return RepairResult(
        str(folder),
        tuple(repaired),
        tuple(todo.reasons),
        content_sha256,
        tuple(store.people.instance_id[is_missing].tolist()),
    )


def _reopen(
    config: StoreRepairConfig,
    layout: StoreLayout,
    entry: TeacherEntry,
    manifest: Manifest,
    todo: ShardRepair,
    teacher: Teacher,
    run_id: str,
) -> TeacherStoreWriter:
    """Return a writer whose pending shards are those to be repaired."""
    recipe = teacher.execution_recipe()
    compare_identity(
        {"execution_recipe": entry.execution_recipe},
        {"execution_recipe": recipe},
        way_out="repair on a machine of the store's kind, or write another store",
    )
    if entry.is_complete:
        reopen_store(layout, entry, manifest, set(todo.reasons), run_id)
    return TeacherStoreWriter.resume(
        layout.folder,
        run_id,
        identity={"teacher": teacher.identity()},
        recipe=recipe,
        image_sha256=todo.image_sha256,
        accept_mended_images=config.accept_mended_images,
        teacher_name=entry.teacher,
    )


def _write_shards(task: ShardTask, teacher: Teacher, todo: ShardRepair, progress: Progress) -> None:
    """Write the pending shards; people may be left out only where some were before."""
    pending = task.writer.pending_shards()
    plan = read_plan(task.writer.layout)
    held_back: list[BadImage] = []
    num_views = task.writer.layout.dimensions.num_views
    num_pending = num_views * sum(len(task.writer.shard_rows(shard)) for shard in pending)
    counters = ShardProgress(progress, num_pending)
    for skip_bad in (False, True):
        worker = ShardWorker(replace(task, skip_bad=skip_bad), teacher, plan)
        shards = [shard for shard in pending if (shard in todo.lenient) is skip_bad]
        for outcome in worker.write_shards(shards, counters.add_views):
            if outcome.receipt is None:
                held_back += outcome.bad_images
            else:
                counters.add_bytes(sum(outcome.receipt.lengths))
    if held_back:
        raise ImageError(
            f"{describe_bad_images(held_back)}; all other shards are written: store repair tries "
            "these images again, cache-teacher --resume --skip-bad leaves their people out"
        )
