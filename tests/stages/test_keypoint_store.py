"""A store of keypoints alone from cache to repair: known of by every command, maps refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.teacher_store.reader import TeacherStore
from pipeline.training.settings import ReplayedViewSettings
from pipeline.training.store_sources import open_store_views
from pipeline.training.view_order import ViewBatch
from stages.cache_teacher import cache_teacher
from stages.plan_cache import plan_cache
from stages.settings.evaluation import (
    StoreExportConfig,
    StoreInfoConfig,
    StoreRepairConfig,
    StoreVerifyConfig,
)
from stages.settings.pictures import ShowConfig
from stages.show import show
from stages.store_export import store_export
from stages.store_info import info_as_json, info_as_lines, store_info
from stages.store_repair import store_repair
from stages.store_verify import disagreement_as_lines, store_verify


@pytest.fixture
def points(inputs: Any) -> Any:
    cache_teacher(inputs.config(profile="keypoints"))
    return inputs


def test_every_command_knows_a_store_of_keypoints_alone(points: Any, tmp_path: Path) -> None:
    before = points.digests()
    info = store_info(StoreInfoConfig(store=str(points.store)))
    lines = info_as_lines(info)
    assert any("keypoints: int16, keypoints stored to 0.007812 crop pixels" in i for i in lines)
    assert any("the teacher's heatmaps of 64x48 cells are not stored" in i for i in lines)
    assert not any("codec error" in i for i in lines)
    assert json.loads(info_as_json(info))["teachers"][0]["profile"] == "keypoints"
    given = {
        "store": str(points.store),
        "teacher": points.folder / "teacher.onnx",
        "images": points.images,
    }
    verified = store_verify(StoreVerifyConfig(**given))
    assert not any(verified.problems.values())
    assert verified.disagreement is not None
    (line,) = disagreement_as_lines(verified.disagreement)
    assert line.startswith("keypoints: at most ")
    (path,) = (points.store / "teachers/teacher/keypoints").glob("c.1.*")
    path.write_bytes(path.read_bytes()[:-1])
    store_repair(StoreRepairConfig(**given))
    assert points.digests() == before
    exported = store_export(
        StoreExportConfig(store=str(points.store), output=tmp_path / "results.json")
    )
    assert exported.num_poses == TeacherStore.open(points.store).people.num_instances
    sheet = show(
        ShowConfig(store=str(points.store), images=points.images, output=tmp_path / "sheet.png")
    )
    assert sheet.exists()


def test_terms_that_read_maps_are_refused_and_keypoints_are_learned_from(points: Any) -> None:
    settings = ReplayedViewSettings()
    with pytest.raises(ConfigError, match=r"must hold heatmaps, which loss terms read, but holds"):
        open_store_views(points.store, points.images, settings, frozenset({"heatmaps"}))
    reads = frozenset({"keypoints"})
    views = open_store_views(points.store, points.images, settings, reads)  # type: ignore[arg-type]
    rows = views.instances[:2]
    batch = views.dataset((256, 192))[ViewBatch(rows, rows * 0 + 1)]
    assert batch.teacher is not None
    assert batch.teacher.heatmaps is None
    assert batch.teacher.keypoints is not None


def test_a_plan_counts_no_heatmaps(points: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.caching import estimate

    monkeypatch.setattr(estimate, "planned_rows_per_shard", lambda *_: 2)
    said: list[str] = []
    measured = plan_cache(points.config(profile="keypoints"), with_probe=True, say=said.append)
    guessed = plan_cache(points.config(profile="keypoints"), with_probe=False)
    size = sum(path.stat().st_size for path in points.store.rglob("*") if path.is_file())
    assert measured.num_bytes == pytest.approx(size, rel=0.01)
    assert guessed.num_bytes == pytest.approx(size, rel=0.3)
    assert not any("bytes of heatmaps" in line for line in said)
    assert any("keypoints are stored to 0.0078125 crop pixels; 103 bytes a view" in i for i in said)
