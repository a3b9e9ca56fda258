"""Stage one, not run: people and teacher -> an estimate of their teacher store's size and time."""

import time

from pipeline.ablation.budget import seconds_per_view
from pipeline.caching.estimate import (
    StoreEstimate,
    estimate_from_trial,
    estimate_from_typical_stores,
    run_trial,
)
from pipeline.caching.free_space import free_space, in_bytes
from pipeline.caching.inputs import open_inputs
from pipeline.caching.settings import CacheSettings
from pipeline.coco.people import People
from pipeline.frames.views import draw_views
from pipeline.machine import choose_device
from pipeline.teachers import Teacher
from pipeline.teachers.checks import check_teacher
from pipeline.teachers.probe import probe_rows, take_probe
from pipeline.wording import Log, counted
from store_schemas.formats import profile_named

TRIAL_BATCH = 4
"""Crops in a step of the student whose training the store is compared with."""
TRIAL_SHARE = 4
"""Number of people of the probe for each person of the trial store, which has all their views."""
LEAST_TRIAL_PEOPLE = 16


def plan_cache(
    config: CacheSettings, *, with_probe: bool = True, say: Log = lambda _: None
) -> StoreEstimate:
    """Estimate the bytes and seconds of a store; nothing is written at its location.

    with_probe: check the teacher as stage one does, and write a small store of a quarter of the
        probe's people, 16 at least; else estimate from typical stores.

    Raises:
        PeopleError: annotations or images contradict themselves.
        TeacherError: the teacher cannot be loaded or is set up wrongly.
    """
    began = time.perf_counter()
    people, teacher = open_inputs(config, say)
    student_seconds = _student_seconds(config, people) if with_probe else None
    estimate = (
        _measured_estimate(config, people, teacher, began, say)
        if with_probe
        else estimate_from_typical_stores(config, people, teacher)
    )
    size = estimate.dimensions
    say(
        f"plan: {counted(size.num_instances, 'person')} x {counted(size.num_views, 'view')} (the "
        f"evaluation crop and {config.views} augmented) = {counted(estimate.num_views, 'view')} in "
        f"{counted(size.num_shards, 'shard')} of up to {counted(size.rows_per_shard, 'person')}"
    )
    measured = "" if with_probe else " (from typical stores)"
    free, where = free_space(config.store)
    say(f"estimate: about {in_bytes(estimate.num_bytes)}{measured}, {where}")
    for name, per_view in estimate.optional_bytes_per_view.items():
        say(f"estimate: of these, {name} about {per_view:.0f} bytes a view{measured}")
    if estimate.seconds is not None:
        hours = estimate.seconds / 3600
        say(f"estimate: about {hours:.2f} hours ({estimate.seconds:.0f} s) on this machine")
    say(_break_even(config, estimate, student_seconds))
    if free is not None and estimate.num_bytes > free:
        say("estimate: THE DISK IS TOO SMALL; choose another --store, or fewer --views")
    return estimate


def _measured_estimate(
    config: CacheSettings, people: People, teacher: Teacher, began: float, say: Log
) -> StoreEstimate:
    shown = people.select(probe_rows(people, config.probe_people))
    views = draw_views(shown, config.recipe, config.seed, config.views, teacher.input_size_hw)
    probe = take_probe(teacher, shown, config.images, views.image_to_crop, shown.num_instances)
    profile = profile_named(config.profile, teacher.input_size_hw)
    units = check_teacher(
        teacher, shown, probe, profile, accept_weak=config.accept_weak_teacher, say=say
    )
    fixed_seconds = time.perf_counter() - began
    num_people = max(config.probe_people // TRIAL_SHARE, LEAST_TRIAL_PEOPLE)
    trial = run_trial(config, people, teacher, units.threshold, num_people)
    heatmaps = f"{trial.heatmap_bytes / trial.num_views:.0f} bytes of heatmaps and "
    say(
        f"probe: {heatmaps if trial.heatmap_bytes else ''}"
        f"{1e3 * trial.seconds / trial.num_slots:.1f} ms a view, on "
        f"{counted(trial.num_views, 'view')}"
    )
    say(f"probe: {trial.breakdown.describe()}")
    return estimate_from_trial(config, people, teacher, trial, fixed_seconds)


def _student_seconds(config: CacheSettings, people: People) -> float:
    """Return the seconds of forward and backward pass of a view of the compared student."""
    device = choose_device("auto")
    return seconds_per_view(
        config.training.student, people.skeleton.num_keypoints, TRIAL_BATCH, device
    )


def _break_even(
    config: CacheSettings, estimate: StoreEstimate, student_seconds: float | None
) -> str:
    """Return a line that compares the store with the teacher in the loop of a training."""
    training, num_people = config.training, estimate.dimensions.num_instances
    num_shown = training.epochs * num_people
    num_students = estimate.break_even(training.epochs)
    epochs = counted(training.epochs, "epoch")
    paid = f"the store has paid for itself after {counted(num_students, 'student')}"
    if student_seconds is None or estimate.teacher_seconds is None:
        return (
            f"break-even: the teacher predicts {counted(estimate.num_views, 'view')} for the store "
            f"and {num_shown} in {epochs} of a training with the teacher in the loop; {paid}"
        )
    student, teacher = (
        num_shown * each / 3600 for each in (student_seconds, estimate.teacher_seconds)
    )
    return (
        f"break-even: {epochs} of {training.student} take {student:.2f} hours from the store and "
        f"{student + teacher:.2f} with the teacher in the loop; {paid}"
    )
