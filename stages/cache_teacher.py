"""Stage one: people -> views -> teacher -> encoded outputs -> teacher store.

The teacher predicts every view of every person once, and is not needed afterwards.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.caching.breakdown import Breakdown, sum_breakdowns
from pipeline.caching.engines import THIS_PROCESS, EngineChoice, open_engine
from pipeline.caching.estimate import estimate_from_typical_stores
from pipeline.caching.free_space import check_free_space
from pipeline.caching.inputs import (
    digest_images,
    draw_view_plan,
    open_inputs,
    optional_arrays,
    stored_view_plan,
    view_identity,
    with_views_of,
)
from pipeline.caching.prediction_stream import BadImage, describe_bad_images
from pipeline.caching.settings import CacheTeacherConfig
from pipeline.caching.shard_worker import ShardTask
from pipeline.caching.stopping import StopRequest
from pipeline.coco.people import People
from pipeline.errors import ImageError, TeacherError
from pipeline.progress import NO_PROGRESS, Progress, ShardProgress
from pipeline.runs.run_folder import provenance
from pipeline.settings import StoredPeopleSettings, absolute_teacher
from pipeline.storage.folder import StoreFolder, absolute_location, open_folder
from pipeline.storage.lease import acquire_lease
from pipeline.teacher_store.people_comparison import compare_people
from pipeline.teacher_store.plan import layout_of, read_plan
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teacher_store.writer import (
    NewTeacher,
    TeacherStoreWriter,
    begin_teacher,
    compare_views,
)
from pipeline.teachers import Teacher
from pipeline.teachers.checks import check_teacher
from pipeline.teachers.probe import take_probe
from pipeline.wording import Log, counted
from store_schemas.errors import StoreError
from store_schemas.formats import profile_named
from store_schemas.metadata import compare_identity
from store_schemas.root_metadata import read_entries, read_entry
from store_schemas.teacher_store import Status


@dataclass(frozen=True)
class CacheResult:
    """A complete store, and the run that completed it."""

    store: str
    num_people: int
    num_views: int
    num_bytes: int
    """Bytes of all files, those of the store's other teachers included."""
    num_teachers: int
    """Number of the store's teachers."""
    seconds: float
    content_sha256: str
    missing_people: tuple[int, ...]
    """Instance ids of the people left out by --skip-bad."""
    breakdown: Breakdown
    """Time of writing shards, by activity."""


def cache_teacher(
    config: CacheTeacherConfig,
    *,
    resume: bool = False,
    take_over: bool = False,
    engine_choice: EngineChoice = THIS_PROCESS,
    progress: Progress = NO_PROGRESS,
    say: Log = lambda _: None,
) -> CacheResult:
    """Predict all views of all people with the teacher, and write the teacher store.

    take_over: replace another run that seems to be writing this store.
    engine_choice: engine that writes the shards; every engine writes the same bytes.
    progress: counts views; its figures are views/s and the MB of written shards.

    Afterwards ``config.store`` is a complete store; after an error, ``resume`` completes it, and
    keeps the shards that are written.

    Raises:
        PeopleError: annotations or images contradict themselves; nothing was written.
        TeacherError: the teacher cannot be loaded or is set up wrongly; nothing was written.
        ImageError: images could not be decoded; all shards without them are written.
        StoreError: the path holds another store, or the disk is full.
        ClusterError: there is no cluster, or none of its workers may write this store.
        Stopped: on SIGTERM or Ctrl-C.
    """
    started = time.monotonic()
    if engine_choice.is_cluster:
        absolute = {"images": config.images.absolute(), "teacher": absolute_teacher(config.teacher)}
        store = absolute_location(config.store)  # the workers may run in other folders
        config = config.model_copy(update={**absolute, "store": store})
    folder = open_folder(config.store)
    stop = StopRequest(config.grace_seconds, say)
    with (
        stop.guarding(),
        acquire_lease(folder, take_over=take_over) as lease,
        ExitStack() as cluster,
    ):
        is_store = folder.size("zarr.json") is not None
        is_begun = is_store and config.teacher_name in read_entries(folder)
        if is_begun and not resume:
            raise StoreError(
                f"{folder} holds a store; use --resume, or choose another path or --teacher-name"
            )
        if is_store:
            config = with_views_of(config, folder)
        engine = cluster.enter_context(open_engine(engine_choice, say))
        recipe = read_entry(folder, config.teacher_name).execution_recipe if is_begun else None
        people, teacher = open_inputs(config, say, recipe)
        size = estimate_from_typical_stores(config, people, teacher)
        if not is_begun:  # all is refused before an image is read or anything is written
            check_free_space(size.num_bytes, config.store, say)
        digests = digest_images(people, config.images)
        writer = (
            _resume_store(config, folder, lease.run_id, people, teacher, digests)
            if is_begun
            else _begin_teacher(
                config, folder, lease.run_id, people, teacher, digests, is_store, say
            )
        )
        stop.begin(writer)
        pending = writer.pending_shards()
        num_there = writer.num_shards - len(pending)
        if num_there:
            say(f"resuming: {num_there} of {counted(writer.num_shards, 'shard')} there")

        task = ShardTask(writer, config.teacher, teacher.settings, config.images, config.skip_bad)
        num_views = config.views + 1
        held_back: list[BadImage] = []
        breakdowns: list[Breakdown] = []
        views_of_shards = [num_views * len(writer.shard_rows(shard)) for shard in pending]
        counters = ShardProgress(progress, sum(views_of_shards))
        with stop.running_shards(views_of_shards):
            for outcome in engine.run(task, teacher, pending, counters.add_views, stop):
                breakdowns.append(outcome.breakdown)
                if outcome.receipt is None:
                    held_back += outcome.bad_images
                else:
                    counters.add_bytes(sum(outcome.receipt.lengths))
            stop.check()

        if held_back:
            raise ImageError(
                f"{describe_bad_images(held_back)}; all other shards of {folder} are written: "
                f"--resume tries these images again, --resume --skip-bad leaves their people out, "
                f"--resume --accept-mended-images takes other files in their place"
            )
        content_sha256 = writer.finish()

    missing, not_finite = _missing_people(folder, config.teacher_name, say)
    if not_finite:
        raise TeacherError(
            f"the teacher's output was not finite for {counted(not_finite, 'view')}, marked in "
            f"{folder}, which is complete without these people"
        )
    return CacheResult(
        config.store,
        people.num_instances,
        num_views,
        folder.num_bytes(),
        len(read_entries(folder)),
        time.monotonic() - started,
        content_sha256,
        missing,
        sum_breakdowns(breakdowns),
    )


def _begin_teacher(
    config: CacheTeacherConfig,
    folder: StoreFolder,
    run_id: str,
    people: People,
    teacher: Teacher,
    digests: NDArray[np.uint8],
    is_store: bool,
    say: Log,
) -> TeacherStoreWriter:
    """Check the teacher, and write the plan of a new store or add the teacher to a store."""
    views = (
        stored_view_plan(config, folder, people, teacher, say)
        if is_store
        else draw_view_plan(config, people, teacher)
    )
    probe = take_probe(teacher, people, config.images, views.image_to_crop, config.probe_people)
    profile = profile_named(config.profile, teacher.input_size_hw)
    units = check_teacher(
        teacher, people, probe, profile, accept_weak=config.accept_weak_teacher, say=say
    )
    new = NewTeacher(
        name=config.teacher_name,
        identity=teacher.identity(),
        recipe=teacher.execution_recipe(),
        provenance=provenance(
            annotations=str(config.annotations.absolute()),
            images=str(config.images.absolute()),
            teacher=str(absolute_teacher(config.teacher)),
            people=_recorded(config.people),
        ),
        heatmap_size_hw=teacher.heatmap_size_hw,
        threshold=units.threshold,
        profile=profile,
        optional=optional_arrays(config, teacher),
    )
    return begin_teacher(folder, run_id, people, digests, views, new)


def _recorded(settings: StoredPeopleSettings) -> dict[str, Any]:
    """Return the settings of the people for the provenance, with an absolute path."""
    found = settings.detections
    absolute = None if found is None else found.absolute()
    return settings.model_copy(update={"detections": absolute}).model_dump(mode="json")


def _resume_store(
    config: CacheTeacherConfig,
    folder: StoreFolder,
    run_id: str,
    people: People,
    teacher: Teacher,
    digests: NDArray[np.uint8],
) -> TeacherStoreWriter:
    """Open an incomplete store, and refuse one with another identity field by field.

    Views are the stored ones: redrawing them would need the same library's random stream. The same
    holds for the profile, whose definition may have changed since.
    """
    name = config.teacher_name
    entry = read_entry(folder, name)
    stored = entry.identity
    compare_people(read_plan(layout_of(folder, entry)).people, people)
    given = {"codec": {"profile": config.profile}, **optional_arrays(config, teacher).to_json()}
    fields = ("codec.profile", "crops", "tokens")  # first, as other differences follow from them
    compare_identity(stored.to_json(), given, fields, "resume with it, or write to another path")
    views = view_identity(config, teacher)
    compare_views(stored.views, {"num_views": views["num_views"]})
    return TeacherStoreWriter.resume(
        folder,
        run_id,
        identity={"teacher": teacher.identity(), "views": views},
        image_sha256=digests,
        accept_mended_images=config.accept_mended_images,
        recipe=teacher.execution_recipe(),
        teacher_name=name,
    )


def _missing_people(store: StoreFolder, teacher: str, say: Log) -> tuple[tuple[int, ...], int]:
    """Return the ids of people with unreadable images, and the number of views not finite."""
    opened = TeacherStore.open(store, teacher)
    is_missing = (opened.status == Status.IMAGE_UNREADABLE).any(axis=1)
    missing = tuple(opened.people.instance_id[is_missing].tolist())
    for row in np.flatnonzero(is_missing).tolist():
        image = opened.people.image_name[opened.people.image_index[row]]
        say(f"left out: person {opened.people.instance_id[row]}, image {image} cannot be decoded")
    return missing, int((opened.status == Status.OUTPUT_NOT_FINITE).sum())
