"""Laws of stage one: all views of all people are stored, and nothing goes wrong in silence."""

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.coco.image_files import decode_image
from pipeline.coco.read_people import read_people
from pipeline.coco.skeletons import COCO_KEYPOINT_NAMES, flip_indices_of_names
from pipeline.errors import ImageError, PeopleError, TeacherError
from pipeline.frames.crops import warp_crop
from pipeline.models.pose_networks import build_network
from pipeline.runs.checkpoints import describe_network, save_weights
from pipeline.settings import PeopleSettings
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teachers import Teacher, open_teacher
from pipeline.teachers.network import Prediction
from pipeline.teachers.onnx_network import OnnxNetwork
from stages.cache_teacher import cache_teacher
from stages.plan_cache import plan_cache
from store_schemas.errors import IncompleteError, StoreError
from store_schemas.heatmap_codec import dequantise_heatmaps
from store_schemas.teacher_store import Status

FLIP = flip_indices_of_names(COCO_KEYPOINT_NAMES)
NUM_VIEWS = 3
ROWS_PER_SHARD = 2


def test_a_store_holds_all_views_of_all_people(inputs: Any) -> None:
    said: list[str] = []
    result = cache_teacher(inputs.config(), say=said.append)
    store = TeacherStore.open(inputs.store)
    assert (store.people.num_instances, store.num_views) == (result.num_people, NUM_VIEWS)
    assert store.num_shards == -(-result.num_people // ROWS_PER_SHARD) >= 4
    assert (store.status == Status.OK).all()
    assert result.content_sha256 == store.content_sha256
    assert result.missing_people == ()
    sizes = [path.stat().st_size for path in inputs.store.rglob("*") if path.is_file()]
    assert result.num_bytes == sum(sizes)
    assert [line.split(":")[0] for line in said] == ["people", "teacher", *["probe"] * 5]


def test_what_is_stored_is_what_the_teacher_says_of_each_crop(inputs: Any) -> None:
    """Points, peaks and, within the codec's bound, heat; whatever else was in its batch."""
    config = inputs.config(teacher_settings__flip_test=True)
    cache_teacher(config)
    store = TeacherStore.open(inputs.store)
    teacher = open_teacher(config.teacher, config.teacher_settings)
    for row in range(store.people.num_instances):
        name = store.people.image_name[store.people.image_index[row]]
        image = decode_image(inputs.images / name)
        stored = store.read([row] * NUM_VIEWS, list(range(NUM_VIEWS)))
        crops = [warp_crop(image, affine, store.input_size_hw) for affine in stored.image_to_crop]
        said = teacher.predict_and_decode(np.stack(crops), FLIP)
        np.testing.assert_allclose(stored.keypoints, said.keypoints, atol=1e-3)
        np.testing.assert_allclose(stored.confidence, said.confidences, atol=1e-6)
        error = np.abs(dequantise_heatmaps(stored.heatmaps, stored.scale) - said.heatmaps)
        bound = np.maximum(stored.scale / 2, store.threshold)[..., None, None]
        assert (error <= bound + 1e-6).all()


def test_batches_never_leave_a_shard(inputs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass has four crops; a shard of 2 people x 3 views takes two, the second padded."""
    batches, sizes = [], []
    forward, predict = OnnxNetwork.forward, Teacher.predict

    def count_forward(
        self: OnnxNetwork, images: NDArray[np.float32], with_tokens: bool = False
    ) -> Prediction:
        sizes.append(len(images))
        return forward(self, images, with_tokens)

    def count_batch(
        self: Teacher,
        crops: NDArray[np.uint8],
        flip_indices: tuple[int, ...],
        with_tokens: bool,
    ) -> Prediction:
        batches.append(len(crops))
        return predict(self, crops, flip_indices, with_tokens)

    monkeypatch.setattr(OnnxNetwork, "forward", count_forward)
    monkeypatch.setattr(Teacher, "predict", count_batch)
    result = cache_teacher(inputs.config(probe_people=1))
    pairs, odd = divmod(result.num_people, 2)
    assert batches == [4, 2] * pairs + [3] * odd
    assert len(sizes) >= len(batches)
    assert set(sizes) == {4}


def test_a_folder_of_something_else_is_not_written_into(inputs: Any) -> None:
    inputs.store.mkdir(parents=True)
    (inputs.store / "thesis.txt").write_text("dear")
    with pytest.raises(StoreError, match=r"must be a new or empty folder, but holds thesis\.txt"):
        cache_teacher(inputs.config())
    assert inputs.digests().keys() == {"thesis.txt"}


def test_half_an_image_is_named_and_holds_back_its_shards_alone(inputs: Any) -> None:
    bad = inputs.truncate(0)
    with pytest.raises(
        ImageError,
        match=rf"1 image with \d people could not be decoded: image .*{bad.name}' cannot be "
        r"read: .*; all other shards of .* are written: --resume tries .*--resume --skip-bad leave",
    ):
        cache_teacher(inputs.config())
    store = TeacherStore.open(inputs.store, require_complete=False)
    is_held_back = store.people.image_index == store.people.image_index[0]
    shard_of_row = np.arange(len(is_held_back)) // ROWS_PER_SHARD
    is_missing = np.isin(shard_of_row, shard_of_row[is_held_back])
    assert (store.status[is_missing] == Status.NOT_WRITTEN).all()
    assert (store.status[~is_missing] == Status.OK).all()
    assert (~is_missing).any()
    with pytest.raises(IncompleteError, match="finish it by running cache-teacher with --resume"):
        TeacherStore.open(inputs.store)


@pytest.mark.parametrize("is_resumed", [True, False])
def test_skip_bad_finishes_without_the_people_of_bad_images_and_lists_them(
    inputs: Any, is_resumed: bool
) -> None:
    bad = inputs.truncate(0)
    if is_resumed:
        with pytest.raises(ImageError):
            cache_teacher(inputs.config())
    said: list[str] = []
    result = cache_teacher(inputs.config(skip_bad=True), resume=is_resumed, say=said.append)
    store = TeacherStore.open(inputs.store)
    is_bad = store.people.image_index == store.people.image_index[0]
    assert (store.status[is_bad] == Status.IMAGE_UNREADABLE).all()
    assert (store.status[~is_bad] == Status.OK).all()
    assert store.present_instances().tolist() == np.flatnonzero(~is_bad).tolist()
    assert result.missing_people == tuple(store.people.instance_id[is_bad].tolist())
    left_out = [line for line in said if line.startswith("left out")]
    assert left_out == [
        f"left out: person {person}, image {bad.name} cannot be decoded"
        for person in result.missing_people
    ]


def test_output_that_is_not_finite_is_marked_and_told(
    inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two views of the first two batches; the store is complete, and the command fails."""
    predict, calls = Teacher.predict, itertools.count()

    def poisoned(
        self: Teacher,
        crops: NDArray[np.uint8],
        flip_indices: tuple[int, ...],
        with_tokens: bool,
    ) -> Prediction:
        call = next(calls)
        prediction = predict(self, crops, flip_indices, with_tokens)
        if call < 2:
            prediction.heatmaps[1, 5, 3, 3] = np.nan
        return prediction

    monkeypatch.setattr(Teacher, "predict", poisoned)
    with pytest.raises(TeacherError, match=r"not finite for 2 views, marked in .*teacher"):
        cache_teacher(inputs.config())
    store = TeacherStore.open(inputs.store)
    # Batches of four crops: the second crop is (0, 1), the sixth is (1, 2).
    failed = np.argwhere(store.status == Status.OUTPUT_NOT_FINITE).tolist()
    assert failed == [[0, 1], [1, 2]]
    assert store.present_instances().tolist() == list(range(2, store.people.num_instances))
    with pytest.raises(IncompleteError, match="row 0, view 1 must have status 1"):
        store.read([0], [1])


def lose_an_image(inputs: Any) -> None:
    inputs.image_of_row(0).unlink()


def fewer_maps(inputs: Any) -> None:
    inputs.write_teacher(num_keypoints=5)


def no_teacher(inputs: Any) -> None:
    (inputs.folder / "teacher.onnx").unlink()


def no_finite_map(inputs: Any) -> None:
    inputs.write_teacher(gain=np.inf)


def no_readable_image(inputs: Any) -> None:
    for path in inputs.images.iterdir():
        path.write_bytes(path.read_bytes()[:-500])


@pytest.mark.parametrize(
    ("change", "settings", "error", "match"),
    [
        (lose_an_image, {}, PeopleError, r"image '.*jpg' is not in the folder"),
        (no_teacher, {}, TeacherError, r"teacher\.onnx does not exist"),
        (fewer_maps, {}, TeacherError, r"predicts 5 heatmaps, but the category has 17 keypoints"),
        (no_finite_map, {}, TeacherError, r"values that are not finite; check its preprocessing"),
        (no_readable_image, {}, TeacherError, r"of the probe's .* images none can be read"),
        (
            None,
            {"teacher_settings__heatmap_activation": "none"},
            TeacherError,
            r"--heatmap-activation sigmoid if the model outputs logits",
        ),
        (
            None,
            {"teacher_settings__heatmap_frame": "msra"},
            TeacherError,
            r"heatmap frame msra puts mirrored .* use --heatmap-frame half-pixel or udp",
        ),
        (None, {"accept_weak_teacher": False}, TeacherError, r"expected at least 0\.2; .*--accept"),
    ],
)
def test_what_is_refused_before_the_first_shard_leaves_nothing_on_disk(
    inputs: Any,
    change: Callable[[Any], None] | None,
    settings: dict[str, object],
    error: type[Exception],
    match: str,
) -> None:
    if change is not None:
        change(inputs)
    with pytest.raises(error, match=match):
        cache_teacher(inputs.config(**settings))
    assert not inputs.store.parent.exists()


def test_a_teacher_of_other_keypoints_is_refused_by_the_first_difference(inputs: Any) -> None:
    """As many of them, so that only the names that its checkpoint keeps can tell."""
    skeleton = read_people(inputs.annotations, None, PeopleSettings()).skeleton
    names = (*skeleton.keypoint_names[:-1], "tail")
    torch.manual_seed(0)  # of some random weights the probe rightly refuses the maps
    network = build_network("tokenpose-xs", 17)
    info = describe_network(
        network,
        replace(skeleton, keypoint_names=names),
        padding=1.25,
        seed=0,
        score_rule="one",
        heatmap_frame="half-pixel",
    )
    save_weights(inputs.folder / "t.safetensors", network, info)
    with pytest.raises(PeopleError, match="has 'tail' as keypoint 16, the annotations have 'right"):
        cache_teacher(inputs.config(teacher=inputs.folder / "t.safetensors"))
    assert not inputs.store.parent.exists()


@pytest.mark.parametrize("with_probe", [True, False])
def test_a_plan_says_what_it_would_cost_and_writes_nothing(
    inputs: Any, with_probe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=12_340_000_000))
    before = inputs.digests(inputs.folder)
    said: list[str] = []
    plan_cache(inputs.config(), with_probe=with_probe, say=said.append)
    assert inputs.digests(inputs.folder) == before
    people = int(next(line for line in said if line.startswith("people")).split()[1])
    text = "\n".join(said)
    assert f"plan: {people} people x 3 views (the evaluation crop and 2 augmented)" in text
    assert f" = {3 * people} views in 1 shard of up to " in text
    assert "12.34 GB free at" in text
    assert ("(from typical stores)" in text) != with_probe
    assert ("bytes of heatmaps and" in text and " s) on this machine" in text) == with_probe
    assert "TOO SMALL" not in text


def test_a_plan_warns_of_a_disk_that_is_too_small(
    inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    said: list[str] = []
    plan_cache(inputs.config(), with_probe=False, say=said.append)
    assert said[-1].startswith("estimate: THE DISK IS TOO SMALL; choose another --store, or fewer")
