"""Stage one: people -> views -> teacher -> encoded outputs -> teacher store.

The teacher looks at every person once, in all views; afterwards nobody needs it again.
"""

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.caching.engines import run_here
from pipeline.caching.shard_worker import ShardTask, ShardWorker, read_writers_plan
from pipeline.coco.people import People
from pipeline.coco.read_people import PeopleSettings, read_people
from pipeline.config import StageConfig
from pipeline.errors import ImageError, TeacherError
from pipeline.evaluation.evaluated_networks import require_same_names
from pipeline.frames.views import ViewRecipe, describe_missing_halves, draw_views
from pipeline.provenance import provenance
from pipeline.teacher_store.folder import StoreFolder, open_folder
from pipeline.teacher_store.lease import acquire_lease
from pipeline.teacher_store.opening import read_entry
from pipeline.teacher_store.plan import ViewPlan, people_identity
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teacher_store.writer import TeacherStoreWriter
from pipeline.teachers import Teacher, TeacherSettings, open_teacher
from pipeline.teachers.checks import check_teacher, measure_units
from pipeline.teachers.probe import PROBE_PEOPLE, measure_bytes_per_view, take_probe
from pipeline.teachers.teacher import require_keypoints
from pipeline.teachers.teacher_pass import (
    BadImage,
    describe_bad_images,
    digest_images,
)
from stages.terminal import caching_progress
from store_schemas.errors import StoreError
from store_schemas.profiles import profile_named
from store_schemas.teacher_store import Status, default_rows_per_shard

TEACHER_NAME = "teacher"
GUESSED_BYTES_PER_VIEW = 7_000
"""What a plan says before a probe has measured it: stores of real people took 5.8 to 7.0 KB."""

Say = Callable[[str], None]


class CacheTeacherConfig(StageConfig):
    """All that decides what stage one writes."""

    annotations: Path
    images: Path
    teacher: Path
    store: str
    """Where it lies: the path of a folder."""
    profile: Literal["default", "small", "fast", "lossless-float16"] = "default"
    """How heatmaps are stored."""
    views: int = Field(8, ge=0)
    """Augmented views of every person, beside the evaluation crop."""
    seed: int = Field(0, ge=0)
    recipe: ViewRecipe = ViewRecipe()
    teacher_settings: TeacherSettings = TeacherSettings()
    people: PeopleSettings = PeopleSettings()
    probe_people: int = Field(PROBE_PEOPLE, ge=1)
    skip_bad: bool = False
    """Finish without the people of unreadable images, and list them."""
    accept_mended_images: bool = False
    """On resuming, take images that changed, as long as no shard was written of them."""
    accept_weak_teacher: bool = False


@dataclass(frozen=True)
class CacheResult:
    """What stage one leaves behind."""

    store: str
    num_people: int
    num_views: int
    num_bytes: int
    seconds: float
    content: str
    missing_people: tuple[int, ...]
    """Instance ids of people that were left out, by --skip-bad."""


def cache_teacher(
    config: CacheTeacherConfig,
    *,
    resume: bool = False,
    take_over: bool = False,
    say: Say = lambda _: None,
) -> CacheResult:
    """Let the teacher look at all people once and write the teacher store.

    take_over: replace another run that seems to be writing this store.

    Afterwards ``config.store`` is a complete store; on an error it is one that ``resume`` goes on
    with, whole shard by whole shard.

    Raises:
        PeopleError: annotations or images contradict themselves; nothing was written.
        TeacherError: the teacher cannot be loaded or is set up wrongly; nothing was written.
        ImageError: images could not be decoded; all shards without them are written.
        StoreError: the store at the path is another one.
    """
    started = time.monotonic()
    folder = open_folder(config.store)
    with acquire_lease(folder, take_over=take_over) as lease:
        is_begun = folder.size("zarr.json") is not None
        if is_begun and not resume:
            raise StoreError(f"{folder} holds a store; use --resume, or choose another path")
        people, teacher = open_inputs(config, say)
        digests = digest_images(people, config.images)
        writer = (
            _resume_store(config, folder, lease.run_id, people, teacher, digests)
            if is_begun
            else _create_store(config, folder, lease.run_id, people, teacher, digests, say)
        )
        pending = writer.pending_shards()
        num_there = writer.num_shards - len(pending)
        if num_there:
            say(f"resuming: {num_there} of {writer.num_shards} shards are there")

        task = ShardTask(
            writer, config.teacher, config.teacher_settings, config.images, config.skip_bad
        )
        worker = ShardWorker(task, teacher, read_writers_plan(writer))
        num_views = config.views + 1
        held_back: list[BadImage] = []
        num_pending_views = num_views * sum(len(writer.shard_rows(s)) for s in pending)
        with caching_progress(num_pending_views) as progress:
            for outcome in run_here(worker, pending, progress.add_views):
                if outcome.receipt is None:
                    held_back += outcome.bad_images
                else:
                    progress.add_bytes(sum(outcome.receipt.lengths))

        if held_back:
            raise ImageError(
                f"{describe_bad_images(held_back)}; all other shards of {folder} are written: "
                f"--resume tries these images again, --resume --skip-bad leaves their people out, "
                f"--resume --accept-mended-images takes other files in their place"
            )
        content = writer.finish()

    missing, not_finite = _missing_people(folder, say)
    if not_finite:
        raise TeacherError(
            f"the teacher's output was not finite for {not_finite} views; they are marked in "
            f"{folder}, which is complete without these people"
        )
    return CacheResult(
        config.store,
        people.num_instances,
        num_views,
        sum(folder.size(name) or 0 for name in folder.names()),
        time.monotonic() - started,
        content,
        missing,
    )


def plan_cache(config: CacheTeacherConfig, *, with_probe: bool, say: Say) -> None:
    """Say what stage one would do and cost, writing nothing."""
    people, teacher = open_inputs(config, say)
    num_views = config.views + 1
    bytes_per_view, rate = float(GUESSED_BYTES_PER_VIEW), None
    if with_probe:
        affines = draw_views(
            people, config.recipe, config.seed, 0, teacher.input_size_hw
        ).image_to_crop
        began = time.perf_counter()
        probe = take_probe(teacher, people, config.images, affines, config.probe_people)
        rate = len(probe.rows) / (time.perf_counter() - began)
        profile = profile_named(config.profile)
        units = measure_units(probe, profile)
        bytes_per_view = measure_bytes_per_view(probe, units.threshold, profile)
        say(
            f"probe: {bytes_per_view:.0f} bytes and {1e3 / rate:.1f} ms a view on {len(probe.rows)}"
        )
    total = people.num_instances * num_views
    size = total * bytes_per_view
    view_bytes = teacher.num_keypoints * math.prod(teacher.heatmap_size_hw)
    view_bytes *= profile_named(config.profile).bytes_per_cell
    rows = default_rows_per_shard(num_views, view_bytes)
    path = Path(config.store).absolute()
    existing = next(p for p in (path, *path.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    passes = 2 if teacher.settings.flip_test else 1
    say(
        f"plan: {people.num_instances} people x {num_views} views (the evaluation crop and "
        f"{config.views} augmented) = {total} views in {-(-people.num_instances // rows)} shards "
        f"of up to {rows} people"
    )
    measured = "" if with_probe else " (guessed; --probe measures it)"
    say(f"plan: about {_in_words(size)}{measured}, {_in_words(free)} free at {existing}")
    if rate is not None:
        say(f"plan: about {total * passes / rate / 3600:.2f} hours on this machine")
    if size > free:
        say("plan: THE DISK IS TOO SMALL; choose another --store, or fewer --views")


def _in_words(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def open_inputs(config: CacheTeacherConfig, say: Say) -> tuple[People, Teacher]:
    """Read the people and open the teacher, and refuse a pair that does not fit."""
    people = read_people(config.annotations, config.images, config.people)
    say(
        f"people: {people.num_instances} with {people.skeleton.num_keypoints} keypoints in "
        f"{len(np.unique(people.image_index))} of {len(people.image_id)} images, "
        f"{len(people.ignored.annotation_id)} annotations kept as ignore regions"
    )
    if note := describe_missing_halves(people.skeleton, config.recipe):
        say(note)
    teacher = open_teacher(config.teacher, config.teacher_settings)
    require_keypoints(teacher, people.skeleton.keypoint_names)
    if teacher.network.keypoint_names is not None:
        require_same_names(str(config.teacher), teacher.network.keypoint_names, people)
    height, width = teacher.input_size_hw
    rows, columns = teacher.heatmap_size_hw
    say(
        f"teacher: {teacher.network.architecture} (sha256 {teacher.network.sha256[:12]}), crops of "
        f"{height}x{width}, heatmaps of {rows}x{columns}, frame {teacher.frame}, "
        f"{'flips averaged' if teacher.settings.flip_test else 'no flip test'}"
    )
    return people, teacher


def _create_store(
    config: CacheTeacherConfig,
    folder: StoreFolder,
    run_id: str,
    people: People,
    teacher: Teacher,
    digests: NDArray[np.uint8],
    say: Say,
) -> TeacherStoreWriter:
    """Draw the views, probe the teacher and write the plan of a new store."""
    drawn = draw_views(people, config.recipe, config.seed, config.views, teacher.input_size_hw)
    probe = take_probe(teacher, people, config.images, drawn.image_to_crop, config.probe_people)
    profile = profile_named(config.profile)
    units = check_teacher(
        teacher, people, probe, profile, accept_weak=config.accept_weak_teacher, say=say
    )
    return TeacherStoreWriter.create(
        folder,
        run_id,
        people,
        digests,
        ViewPlan(
            drawn.image_to_crop,
            drawn.is_mirrored,
            teacher.input_size_hw,
            config.seed,
            config.recipe.model_dump(mode="json"),
        ),
        TEACHER_NAME,
        identity={"teacher": teacher.identity()},
        recipe=teacher.execution_recipe(),
        provenance=provenance(
            annotations=str(config.annotations.absolute()),
            images=str(config.images.absolute()),
            teacher=str(config.teacher.absolute()),
        ),
        heatmap_size_hw=teacher.heatmap_size_hw,
        threshold=units.threshold,
        profile=profile,
    )


def _resume_store(
    config: CacheTeacherConfig,
    folder: StoreFolder,
    run_id: str,
    people: People,
    teacher: Teacher,
    digests: NDArray[np.uint8],
) -> TeacherStoreWriter:
    """Open a store that was begun, refusing another one field by field.

    The views are the stored ones: redrawing them would need the same library's random stream.
    """
    stored = read_entry(folder, TEACHER_NAME).identity
    views: Mapping[str, Any] = {
        **stored["views"],
        "num_views": config.views + 1,
        "input_size_hw": list(teacher.input_size_hw),
        "seed": config.seed,
        "recipe": config.recipe.model_dump(mode="json"),
    }
    return TeacherStoreWriter.resume(
        folder,
        run_id,
        identity={
            "teacher": teacher.identity(),
            "people": people_identity(people),
            "views": views,
            "codec": {**stored["codec"], **profile_named(config.profile).to_json()},
        },
        image_sha256=digests,
        accept_mended_images=config.accept_mended_images,
        recipe=teacher.execution_recipe(),
        teacher_name=TEACHER_NAME,
    )


def _missing_people(store: StoreFolder, say: Say) -> tuple[tuple[int, ...], int]:
    """Name the people whose images could not be read; count the views without finite output."""
    opened = TeacherStore.open(store, TEACHER_NAME)
    is_missing = (opened.status == Status.IMAGE_UNREADABLE).any(axis=1)
    missing = tuple(opened.people.instance_id[is_missing].tolist())
    for row in np.flatnonzero(is_missing).tolist():
        image = opened.people.image_name[opened.people.image_index[row]]
        say(f"left out: person {opened.people.instance_id[row]}, image {image} cannot be decoded")
    return missing, int((opened.status == Status.OUTPUT_NOT_FINITE).sum())
