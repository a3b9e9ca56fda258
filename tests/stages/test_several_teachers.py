"""Two teachers in one store: each as if it were alone, each named, averaged when they are read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.teacher_store import writer
from pipeline.teacher_store.reader import TeacherStore
from pipeline.training.settings import ReplayedViewSettings
from pipeline.training.store_sources import open_store_views
from pipeline.training.view_order import ViewBatch
from stages.cache_teacher import cache_teacher
from stages.evaluate import evaluate
from stages.settings.evaluation import (
    EvaluateStore,
    StoreExportConfig,
    StoreInfoConfig,
    StoreRepairConfig,
    StoreVerifyConfig,
)
from stages.store_export import store_export
from stages.store_info import store_info
from stages.store_repair import store_repair
from stages.store_verify import store_verify
from store_schemas.checking import check_store
from store_schemas.errors import IdentityError, SchemaError, StoreError
from tests.support.training_batches import heatmaps_of

PEOPLE_AND_VIEWS = ("people/", "views/", "teachers/teacher/")


@pytest.fixture
def two(
    inputs: Any, whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """A store that another teacher, ``other.onnx``, has joined as ``other``; its digests before."""
    monkeypatch.setattr(writer, "planned_rows_per_shard", lambda *_: 2)
    inputs.write_teacher(seed=1)
    (tmp_path / "teacher.onnx").rename(tmp_path / "other.onnx")
    inputs.write_teacher()
    cache_teacher(other(inputs))
    return whole


def other(inputs: Any, **changes: object) -> Any:
    teacher = inputs.folder / "other.onnx"
    return inputs.config(teacher_name="other", teacher=teacher, **changes)


def test_each_teacher_is_stored_as_if_it_were_alone(
    inputs: Any, two: dict[str, str], tmp_path: Path
) -> None:
    """The first one's files stay as they were; the second one's are those of a store of its own."""
    after = inputs.digests()
    assert {name for name, digest in two.items() if after[name] != digest} == {"zarr.json"}
    cache_teacher(other(inputs, store=str(tmp_path / "alone.zarr")))
    alone = inputs.digests(tmp_path / "alone.zarr")
    own = {name for name in alone if name != "zarr.json"}
    assert {name: after[name] for name in own} == {name: alone[name] for name in own}
    assert [found.name for found in check_store(inputs.store)] == ["other", "teacher"]


def test_it_is_resumed_by_its_name_alone(inputs: Any, two: dict[str, str]) -> None:
    (shard,) = inputs.store.glob("teachers/other/heatmaps/c.1.*")
    before = inputs.digests()
    shard.write_bytes(shard.read_bytes()[:-1])
    repaired = store_repair(
        StoreRepairConfig(
            store=str(inputs.store),
            teacher_name="other",
            teacher=inputs.folder / "other.onnx",
            images=inputs.images,
        )
    )
    assert repaired.repaired_shards == (1,)
    assert inputs.digests() == before
    with pytest.raises(StoreError, match="holds a store; use --resume, or choose another path or"):
        cache_teacher(other(inputs))


def test_views_and_seed_that_are_not_given_are_those_of_the_store(
    inputs: Any, whole: dict[str, str]
) -> None:
    given = inputs.config(teacher_name="third")
    fields = {name: getattr(given, name) for name in given.model_fields_set - {"views", "seed"}}
    cache_teacher(type(given)(**fields))
    store = TeacherStore.open(inputs.store, "third")
    first = TeacherStore.open(inputs.store, "teacher")
    assert store.identity.views == first.identity.views


def test_other_people_or_views_do_not_join(inputs: Any, whole: dict[str, str]) -> None:
    with pytest.raises(IdentityError, match=r"'views\.num_views' differs: the store has 3, now"):
        cache_teacher(inputs.config(teacher_name="other", views=3))
    with pytest.raises(IdentityError, match=r"'views\.seed' .* share their views"):
        cache_teacher(inputs.config(teacher_name="other", seed=5))
    inputs.edit(lambda document: document["annotations"].pop())
    with pytest.raises(IdentityError, match=r"'people\.instance_id' differs"):
        cache_teacher(inputs.config(teacher_name="other"))
    assert inputs.digests() == whole


def test_the_commands_take_one_by_its_name(inputs: Any, two: dict[str, str]) -> None:
    store = str(inputs.store)
    assert [t.name for t in store_info(StoreInfoConfig(store=store)).teachers] == [
        "other",
        "teacher",
    ]
    (one,) = store_info(StoreInfoConfig(store=store, teacher_name="other")).teachers
    assert one.name == "other"
    with pytest.raises(SchemaError, match="name one of them with --teacher-name"):
        store_verify(StoreVerifyConfig(store=store, digests_only=True))
    verified = store_verify(
        StoreVerifyConfig(
            store=store,
            teacher_name="other",
            teacher=inputs.folder / "other.onnx",
            images=inputs.images,
            sample=2,
        )
    )
    assert verified.failed is None
    output = inputs.folder / "poses.json"
    store_export(StoreExportConfig(store=store, teacher_name="other", output=output))
    stored = TeacherStore.open(store, "other").read([0], [0])
    first = stored.image_to_crop[0]
    pose = np.reshape(json.loads(output.read_text())[0]["keypoints"], (17, 3))[:, :2]
    in_crop = pose @ first[:, :2].T + first[:, 2]
    np.testing.assert_allclose(in_crop, stored.keypoints[0], atol=0.1)
    found = evaluate(EvaluateStore(store=store, teacher_name="other"))
    assert (
        found.report.evaluated["store_content"] == TeacherStore.open(store, "other").content_sha256
    )


def test_training_reads_the_mean_of_both(inputs: Any, two: dict[str, str]) -> None:
    batch = ViewBatch(np.array([0, 1]), np.array([1, 2]))
    heat = {}
    for names in (("teacher",), ("other",), ("other", "teacher")):
        views = open_store_views(
            inputs.store,
            inputs.images,
            ReplayedViewSettings(teachers=names),
            reads=frozenset({"heatmaps"}),
        )
        found = views.dataset((128, 96))[batch]
        heatmaps, scale = heatmaps_of(found)
        heat[names] = (heatmaps * scale[..., None, None]).numpy()
    single, another, both = heat.values()
    level = both.max(axis=(-2, -1), keepdims=True) / 255
    assert (np.abs(both - (single + another) / 2) <= level * 1.001).all()
    assert np.abs(single - another).max() > 10 * level.max()
