"""Open a store's teacher, let it predict views again, and compare its outputs with the stored.

The difference has two parts. The codec's: |dec(enc(live)) - live|, at most ``error_bound``. And
the arithmetic's: |stored - dec(enc(live))|, 0 on the machine and libraries that wrote the
store. One level of the codec may flip for the smallest difference of arithmetic, so the limit is
put on the sum of both: |stored - live| <= ``error_bound`` + ``ARITHMETIC_TOLERANCE``.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, TeacherError
from pipeline.frames.crop_stream import (
    CropBatch,
    ImageCrops,
    batched_crops,
    requests_by_image,
    stream_crops,
)
from pipeline.machine import available_cores, map_ahead
from pipeline.settings import TeacherSettings, is_on_hub
from pipeline.teacher_store.keypoint_reading import StoredKeypoints
from pipeline.teacher_store.reader import StoredViews, TeacherStore
from pipeline.teachers.opening import open_teacher, recorded_device
from pipeline.teachers.teacher import YOUNGER, Teacher, TeacherOutput
from store_schemas.errors import IdentityError, StoreError
from store_schemas.heatmap_codec import dequantise_heatmaps, error_bound, quantise_heatmaps
from store_schemas.metadata import compare_identity
from store_schemas.stored_identity import StoreIdentity
from store_schemas.teacher_store import Status

ARITHMETIC_TOLERANCE = 1e-3
"""Heat by which machines and libraries may differ in float32, where peaks are near 1."""
WAY_OUT = "give the teacher that the store was made with, or write another store"


def open_stored_teacher(
    path: Path, identity: StoreIdentity, execution_recipe: Mapping[str, Any]
) -> Teacher:
    """Open a teacher under a store's settings, and refuse another one.

    Raises:
        IdentityError: it is not the store's teacher, and names the first field that differs; or a
            setting of the store's teacher is missing or invalid.
        TeacherError: it cannot be loaded, or not with the settings of the store's teacher.
    """
    known = {**execution_recipe, **identity.teacher}
    if known.get("kind") != "published":  # the name of another network is not given, but read
        known["architecture"] = None
    names = [name for name in TeacherSettings.model_fields if name != "device"]
    try:
        settings = TeacherSettings(
            **{name: known[name] for name in names if name in known or name not in YOUNGER},
            device=recorded_device(execution_recipe),
        )
    except (KeyError, ValueError) as error:
        fault = " ".join(str(error).split())
        raise IdentityError(
            f"identity.teacher must hold every setting of a teacher, but does not: {fault}; use "
            "the program that wrote the store"
        ) from error
    try:
        teacher = open_teacher(path, settings)
    except TeacherError as error:
        fault = str(error).removesuffix("; leave the option out")  # no option was given here
        raise TeacherError(
            f"{fault}; {path} must fit the settings of the store's teacher: give the teacher that "
            "the store was written with"
        ) from error
    compare_identity(
        {"teacher": identity.teacher}, {"teacher": teacher.identity()}, way_out=WAY_OUT
    )
    return teacher


def source_path(provenance: Mapping[str, Any], name: str, given: Path | None) -> Path | None:
    """Return the path of a store's teacher, images or annotations; None: it is unknown.

    Args:
        name: Name of the path in the provenance, and of the option that gives another one.
        given: Path by the option; None: the recorded one is returned, if it still exists.

    Raises:
        ConfigError: nothing is at the given path.
    """
    if given is not None and not is_there(given):
        raise ConfigError(f"--{name} {given} does not exist; give the path of the store's {name}")
    recorded = provenance.get(name)
    if given is not None or not isinstance(recorded, str):
        return given
    path = Path(recorded)
    return path if is_there(path) else None


def is_there(path: Path) -> bool:
    """Return whether a source exists; what is on the hub is found when it is opened."""
    return is_on_hub(path) or path.exists()


@dataclass
class Disagreement:
    """Differences of a teacher's outputs from a store, over the views predicted again."""

    num_views: int = 0
    codec: float = 0.0
    """Largest |dec(enc(live)) - live| of a heat, negative heat of ``uint8`` counting as 0."""
    arithmetic: float = 0.0
    """Largest |stored - dec(enc(live))| of a heat."""
    total: float = 0.0
    """Largest |stored - live| of a heat."""
    excess: float = -np.inf
    """Largest |stored - live| minus its bound, tolerance included; above 0: too large."""
    bound: float = 0.0
    """Bound, tolerance included, of the heat that is nearest to it or furthest beyond."""
    confidence: float = 0.0
    """Largest difference of a keypoint's confidence."""
    keypoint: float = 0.0
    """Largest distance of a keypoint, crop pixels; a flat map's peak may lie anywhere."""
    failures: list[str] = field(default_factory=list)
    """Views that differ too much or could not be predicted, a line each."""


def spread_views(
    status: NDArray[np.uint8], num_wanted: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pick views with status OK, one at random from each of ``num_wanted`` equal stretches.

    Args:
        status: (N, V) uint8.

    Returns:
        rows, views: (n,) int64 each, by row; all of them where there are fewer.
    """
    candidates = np.flatnonzero(status == Status.OK)
    if len(candidates) > num_wanted:
        random = np.random.default_rng(seed)
        parts = np.array_split(candidates, num_wanted) if num_wanted else []
        candidates = np.array([random.choice(part) for part in parts], np.int64)
    rows, views = np.divmod(candidates, status.shape[1])
    return rows, views


def recompute_views(
    store: TeacherStore,
    teacher: Teacher,
    image_folder: Path,
    rows: NDArray[np.int64],
    views: NDArray[np.int64],
    on_progress: Callable[[int], None] = lambda _: None,
) -> Disagreement:
    """Let a teacher predict views of a store again, and compare its outputs.

    Args:
        rows: (n,), instances.
        views: (n,).
        on_progress: Called with the number of views compared since the last call.
    """
    found = Disagreement()
    requests = requests_by_image(
        store.people,
        image_folder,
        store.people.image_index[rows],
        store.views.image_to_crop[rows, views],
        image_sha256=store.image_sha256,
    )
    images = stream_crops(requests, store.input_size_hw, crop_format=store.optional.crops)

    def note_unreadable(image: ImageCrops) -> None:
        found.failures.append(str(image.error))
        on_progress(len(image.request.rows))

    def observe(batch: CropBatch) -> tuple[NDArray[np.int64], TeacherOutput]:
        return batch.rows, teacher.predict_and_decode(
            batch.crops, store.people.skeleton.flip_indices
        )

    batches = batched_crops(images, teacher.settings.batch_size, note_unreadable)
    num_looks = teacher.batches_at_a_time(available_cores())
    with closing(images), ThreadPoolExecutor(num_looks, "look") as pool:
        for places, live in map_ahead(pool, observe, batches, lookahead=2 * num_looks):
            _compare(found, store, rows[places], views[places], live)
            on_progress(len(places))
    return found


def _compare(
    found: Disagreement,
    store: TeacherStore,
    rows: NDArray[np.int64],
    views: NDArray[np.int64],
    live: TeacherOutput,
) -> None:
    """Add the differences of some views to those found so far."""
    for i, (row, view) in enumerate(zip(rows.tolist(), views.tolist(), strict=True)):
        found.num_views += 1
        where = f"shard {row // store.rows_per_shard}, row {row}, view {view}"
        if not np.isfinite(live.heatmaps[i]).all():
            found.failures.append(f"{where}: the teacher's output is not finite, the store's is")
            continue
        excess, tolerance = 0.0, ARITHMETIC_TOLERANCE
        try:
            if store.has_heatmaps:
                with_heat = store.read([row], [view])
                excess = _compare_heat(found, store, live.heatmaps[i], with_heat)
                stored: StoredKeypoints = with_heat
            else:
                stored = store.read_keypoints([row], [view])
                # confidences are float16 there: half a unit of 11 significant bits
                tolerance += float(np.abs(live.confidences[i]).max()) * 2.0**-11
        except StoreError as error:
            found.failures.append(str(error))
            continue
        confidence = float(np.abs(stored.confidence[0] - live.confidences[i]).max())
        distance = np.linalg.norm(stored.keypoints[0] - live.keypoints[i], axis=-1).max()
        found.confidence = max(found.confidence, confidence)
        found.keypoint = max(found.keypoint, float(distance))
        if excess > 0:
            found.failures.append(f"{where}: heat is {excess:.3g} beyond its bound")
        elif confidence > tolerance:
            found.failures.append(
                f"{where}: a confidence differs by {confidence:.3g}, at most {tolerance:g} is "
                "tolerated"
            )


def _compare_heat(
    found: Disagreement, store: TeacherStore, live: NDArray[np.float32], stored: StoredViews
) -> float:
    """Add one view's heat (K, Hh, Wh) to the differences; return its excess over the bound."""
    stored_heat = dequantise_heatmaps(stored.heatmaps[0], stored.scale[0])
    profile = store.require_heatmaps()
    again = dequantise_heatmaps(*quantise_heatmaps(live, store.threshold, profile))
    given = live if store.heatmap_dtype == np.float16 else np.maximum(live, np.float32(0))
    total = np.abs(stored_heat - given)
    bound = error_bound(stored.heatmaps[0], stored.scale[0], store.threshold)
    limits = np.broadcast_to(bound + np.float32(ARITHMETIC_TOLERANCE), total.shape)
    over = total - limits
    worst = np.unravel_index(int(over.argmax()), over.shape)
    if over[worst] > found.excess:
        found.excess, found.bound = float(over[worst]), float(limits[worst])
    found.codec = max(found.codec, float(np.abs(again - given).max()))
    found.arithmetic = max(found.arithmetic, float(np.abs(stored_heat - again).max()))
    found.total = max(found.total, float(total.max()))
    return float(over[worst])
