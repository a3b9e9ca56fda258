"""A store goes on from what it was begun with: else one line names field, both values, way out."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from pipeline.runs.run_folder import provenance
from pipeline.storage.folder import LocalFolder
from pipeline.teacher_store.reader import TeacherStore
from stages.cache_teacher import cache_teacher
from stages.evaluate import evaluate
from stages.settings.evaluation import EvaluateStore
from stages.settings.training import TrainStudentConfig
from stages.train_student import train_student
from store_schemas.errors import IdentityError, IncompleteError, SchemaError
from store_schemas.identity import canonical_json, flatten
from store_schemas.root_metadata import read_entry

Change = Callable[[Any], None]
DIGITS = '"[0-9a-f]{64}"'
TEACHER_WAY_OUT = "resume with what the store was made from, or write to another path"
PEOPLE_WAY_OUT = "give the annotations that the store was made from, or write to another path"


def flip_a_bit_of_the_onnx_weights(inputs: Any) -> None:
    path = inputs.folder / "teacher.onnx"
    model = onnx.load(str(path))
    (weights,) = model.graph.initializer
    raw = bytearray(weights.raw_data)
    raw[17] ^= 1
    weights.raw_data = bytes(raw)
    onnx.save(model, str(path))


def of_annotation(inputs: Any, change: Callable[[dict[str, Any]], None]) -> None:
    inputs.edit(lambda document: change(document["annotations"][2]))


def move_a_box(inputs: Any) -> None:
    of_annotation(inputs, lambda person: person["bbox"].__setitem__(2, person["bbox"][2] - 0.5))


def move_a_keypoint(inputs: Any) -> None:
    def move(person: dict[str, Any]) -> None:
        keypoints = person["keypoints"]
        first = next(k for k in range(17) if keypoints[3 * k + 2] > 0)
        keypoints[3 * first] += 0.25

    of_annotation(inputs, move)


def swap_two_keypoints_of_the_category(inputs: Any) -> None:
    def swap(document: dict[str, Any]) -> None:
        names = document["categories"][0]["keypoints"]
        names[1], names[2] = names[2], names[1]

    inputs.edit(swap)


def change_an_image(inputs: Any) -> None:
    path = inputs.image_of_row(0)
    path.write_bytes(path.read_bytes() + b"\0")


def leave_out_a_person(inputs: Any) -> None:
    inputs.edit(lambda document: document["annotations"].pop())


CHANGES: list[tuple[str, Change | None, dict[str, object], str, str]] = [
    ("one bit of an onnx weight", flip_a_bit_of_the_onnx_weights, {}, "teacher.sha256",
     f"the store has {DIGITS}, now it is {DIGITS}; {TEACHER_WAY_OUT}"),
    ("mean", None, {"teacher_settings__mean": (0.5, 0.456, 0.406)}, "teacher.mean",
     rf"the store has \[0\.485,0\.456,.*\], now it is \[0\.5,0\.456,.*\]; {TEACHER_WAY_OUT}"),
    ("image", change_an_image, {}, "people.image_sha256",
     r"the store was begun with image '\d+\.jpg' of sha256 \w{12}, now it is \w{12}; give the image"
     " as it was, write another store, or "),
    ("box", move_a_box, {}, "people.bbox_xywh",
     rf"of annotation \d+ the store has \[.*\], now it is \[.*\]; {PEOPLE_WAY_OUT}"),
    ("keypoint", move_a_keypoint, {}, "people.keypoints",
     rf"of keypoint '\w+' of annotation \d+ the store has \[.*\], now it is .*; {PEOPLE_WAY_OUT}"),
    ("keypoint order", swap_two_keypoints_of_the_category, {}, "people.skeleton.keypoint_names",
     f"the store has 'left_eye' as keypoint 1, now it is 'right_eye'; {PEOPLE_WAY_OUT}"),
    ("people", leave_out_a_person, {}, "people.instance_id",
     rf"the store has annotation \d+, now there is none; {PEOPLE_WAY_OUT}"),
    ("sigmas", None, {"people__skeleton": {"sigmas": (0.1,) * 17}}, "people.skeleton.sigmas",
     rf"the store has \[0\.026.*, now it is \[0\.1,.*; {PEOPLE_WAY_OUT}"),
    ("view recipe", None, {"recipe__rotation_degrees": 5.0}, "views.recipe.rotation_degrees",
     rf"the store has 45\.0, now it is 5\.0; {TEACHER_WAY_OUT}"),
    ("seed", None, {"seed": 9}, "views.seed", f"the store has 0, now it is 9; {TEACHER_WAY_OUT}"),
    ("views", None, {"views": 4}, "views.num_views",
     "the store has 3, now it is 5; a store's views are fixed when it is begun: give as many --vi"),
    ("profile", None, {"profile": "lossless-float16"}, "codec.profile",
     'the store has "default", now it is "lossless-float16"; resume with it, or write to another'),
    ("frame", None, {"teacher_settings__heatmap_frame": "udp"}, "teacher.heatmap_frame",
     f'the store has "half-pixel", now it is "udp"; {TEACHER_WAY_OUT}'),
    ("decoding", None, {"teacher_settings__decoding": "quarter"}, "teacher.decoding",
     f'the store has "dark", now it is "quarter"; {TEACHER_WAY_OUT}'),
    ("flip test", None, {"teacher_settings__flip_test": True}, "teacher.flip_test",
     f"the store has false, now it is true; {TEACHER_WAY_OUT}"),
    ("batch size", None, {"teacher_settings__batch_size": 8}, "execution_recipe.batch_size",
     "the store has 4, now it is 8; resume with the store's recipe"),
    ("threads", None, {"teacher_settings__num_threads": 2}, "execution_recipe.num_threads",
     "the store has 1, now it is 2; resume with the store's recipe"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "settings", "field", "what"),
    [pytest.param(*case, id=name) for name, *case in CHANGES],
)
@pytest.mark.parametrize("is_complete", [False, True], ids=["begun", "complete"])
@pytest.mark.usefixtures("whole")
def test_a_store_does_not_go_on_from_anything_else(
    inputs: Any, change: Change | None, settings: dict[str, object], field: str, what: str,
    is_complete: bool,
) -> None:  # fmt: skip
    if not is_complete:
        begin_again(inputs.store)
    before = inputs.digests()
    if change is not None:
        change(inputs)
    with pytest.raises(IdentityError, match=rf"^identity field '{field}' differs: {what}") as no:
        cache_teacher(inputs.config(**settings), resume=True)
    assert "\n" not in str(no.value)
    assert inputs.digests() == before


def begin_again(store: Path) -> None:
    """Make a complete store one whose shards were never written, but for the first."""
    from pipeline.repair.shards import reopen_store
    from pipeline.storage.lease import acquire_lease
    from pipeline.teacher_store.opening import layout_of
    from store_schemas.manifest import read_manifest

    folder = LocalFolder(store)
    entry = read_entry(folder, None)
    layout = layout_of(folder, entry)
    with acquire_lease(folder) as lease:
        manifest = read_manifest(layout, entry)
        reopen_store(layout, entry, manifest, set(range(1, len(manifest.rows))), lease.run_id)


def write_sizeless_teacher(path: Path) -> None:
    """Write an ONNX network that takes crops of any size."""
    graph = helper.make_graph(
        [helper.make_node("MaxPool", ["image"], ["heatmaps"], kernel_shape=[4, 4], strides=[4, 4])],
        "teacher",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ("n", 3, "h", "w"))],
        [helper.make_tensor_value_info("heatmaps", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))


def three_keypoints(document: dict[str, Any]) -> None:
    """Leave the first three keypoints of everyone: as many as a picture has channels."""
    category = document["categories"][0]
    category["keypoints"] = category["keypoints"][:3]
    category.pop("skeleton", None)
    for person in document["annotations"]:
        person["keypoints"] = person["keypoints"][:9]
        person["num_keypoints"] = sum(v > 0 for v in person["keypoints"][2::3])
    people = [p for p in document["annotations"] if p["num_keypoints"]]
    document["annotations"] = people


@pytest.mark.parametrize("size", [(128, 96), (256, 256)])
def test_another_input_size_or_aspect_is_refused(inputs: Any, size: tuple[int, int]) -> None:
    inputs.edit(three_keypoints)
    write_sizeless_teacher(inputs.folder / "teacher.onnx")
    changes: dict[str, object] = {"people__skeleton": {"sigmas": (0.1,) * 3}}
    cache_teacher(inputs.config(**changes, teacher_settings__input_size_hw=(256, 192)))
    rows, columns = size[0] // 4, size[1] // 4
    match = (
        rf"'teacher\.heatmap_size_hw' differs: the store has \[64,48\], now it is "
        rf"\[{rows},{columns}\] .*teacher\.input_size_hw.*; {TEACHER_WAY_OUT}"
    )
    with pytest.raises(IdentityError, match=match):
        cache_teacher(inputs.config(**changes, teacher_settings__input_size_hw=size), resume=True)


def test_one_bit_of_a_torch_teachers_weights_is_refused(inputs: Any) -> None:
    from pipeline.coco.read_people import read_people
    from pipeline.models.pose_networks import build_network
    from pipeline.runs.checkpoints import describe_network, save_weights
    from pipeline.settings import PeopleSettings

    skeleton = read_people(inputs.annotations, None, PeopleSettings()).skeleton
    torch.manual_seed(0)  # of some random weights the probe rightly refuses the maps
    network = build_network("tokenpose-xs", 17)
    info = describe_network(
        network, skeleton, padding=1.25, seed=0, score_rule="one", heatmap_frame="half-pixel"
    )
    path = inputs.folder / "t.safetensors"
    save_weights(path, network, info)
    config = inputs.config(teacher=path)
    flip_a_mantissa_bit(path)
    flipped = path.read_bytes()
    flip_a_mantissa_bit(path)
    assert sum(a != b for a, b in zip(flipped, path.read_bytes(), strict=True)) == 1
    cache_teacher(config)
    path.write_bytes(flipped)
    match = rf"'teacher\.sha256' differs: the store has {DIGITS}, now it is {DIGITS}; "
    with pytest.raises(IdentityError, match=match + TEACHER_WAY_OUT):
        cache_teacher(config, resume=True)


def flip_a_mantissa_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    (header,) = struct.unpack("<Q", data[:8])
    data[8 + header + 4000] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.usefixtures("whole")
def test_a_newer_schema_is_refused(inputs: Any) -> None:
    root = inputs.store / "zarr.json"
    document = json.loads(root.read_bytes())
    document["attributes"]["schema"] = "2"
    root.write_bytes(canonical_json(document))
    match = "must have schema '1', got '2'; read it with the version of distil that wrote it"
    for refused in (
        lambda: cache_teacher(inputs.config(), resume=True),
        lambda: TeacherStore.open(inputs.store),
    ):
        with pytest.raises(SchemaError, match=match):
            refused()


@pytest.mark.usefixtures("whole")
def test_an_unfinished_store_is_not_trained_from_or_evaluated(inputs: Any, tmp_path: Path) -> None:
    begin_again(inputs.store)
    match = r"must be complete, but has 1 of \d+ shards; finish it by running cache-teacher with"
    with pytest.raises(IncompleteError, match=match):
        evaluate(EvaluateStore(store=inputs.store))
    training = TrainStudentConfig(
        architecture="distilpose-xs", store=inputs.store, images=inputs.images
    )
    with pytest.raises(IncompleteError, match=match):
        train_student(training, tmp_path / "run")


@pytest.mark.usefixtures("whole")
def test_no_version_of_a_program_or_library_is_compared(inputs: Any) -> None:
    """Another version alone refuses no store: versions are recorded beside what is compared."""
    entry = read_entry(LocalFolder(inputs.store), None)
    compared = {**entry.identity.to_json(), "recipe": entry.execution_recipe}
    assert not {name for name in flatten(compared) if "version" in name or "package" in name}
    versions = set(provenance()["packages"].values()) | {provenance()["python"]}
    assert not versions & {str(value) for value in leaves(compared)}


def leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value
