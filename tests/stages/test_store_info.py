"""Laws of telling what a store holds, and of taking its poses out as COCO results."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cli import main
from pipeline.errors import ImageError
from pipeline.runs.run_folder import provenance
from pipeline.storage.folder import LocalFolder
from pipeline.storage.lease import acquire_lease
from pipeline.teacher_store.reader import TeacherStore
from stages import cache_teacher as cache_teacher_stage
from stages.cache_teacher import cache_teacher
from stages.evaluate import evaluate
from stages.settings.evaluation import (
    EvaluatePredictions,
    EvaluateStore,
    StoreExportConfig,
    StoreInfoConfig,
)
from stages.store_export import store_export
from stages.store_info import info_as_json, info_as_lines, store_info
from store_schemas.errors import IncompleteError, StoreError


def info(path: Path) -> tuple[Any, list[str]]:
    """Return what a store says as JSON and in lines."""
    summary = store_info(StoreInfoConfig(store=str(path)))
    return json.loads(info_as_json(summary)), info_as_lines(summary)


def test_a_complete_store_tells_what_it_is(inputs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_teacher_stage, "provenance", provenance)
    content = cache_teacher(inputs.config()).content_sha256
    store = TeacherStore.open(inputs.store)
    found, lines = info(inputs.store)
    (teacher,) = found["teachers"]
    sizes = [path.stat().st_size for path in inputs.store.rglob("*") if path.is_file()]
    num_views = store.people.num_instances * store.num_views
    assert found["num_bytes"] == sum(sizes)
    assert found["bytes_per_view"] == pytest.approx(sum(sizes) / num_views)
    expected = {
        "name": "teacher",
        "fingerprint": store.fingerprint,
        "content": content,
        "is_complete": True,
        "num_shards": store.num_shards,
        "num_present": store.num_shards,
        "num_people": store.people.num_instances,
        "num_images": len(store.people.image_id),
        "num_views": 3,
        "num_keypoints": 17,
        "heatmap_size_hw": [64, 48],
        "profile": "default",
        "threshold": store.threshold,
    }
    assert {name: teacher[name] for name in expected} == expected
    assert teacher["status_counts"] == {
        **{"not written": 0, "ok": num_views},
        **{"image unreadable": 0, "output not finite": 0},
    }
    text = "\n".join(lines)
    for part in (
        "schema            1",
        f"complete, {store.num_shards} shards",
        store.fingerprint,
        content,
        "teacher.onnx, sha256 ",
        f"default: uint8, heat stored to {store.threshold:.4g}",
        f"{num_views} ok",
        f"written: images   {inputs.images}",
        "numpy " + np.__version__,
    ):
        assert part in text
    assert "being written by" not in text


def test_an_incomplete_store_tells_how_far_it_is_and_who_writes_it(inputs: Any) -> None:
    inputs.truncate(0)
    with pytest.raises(ImageError):
        cache_teacher(inputs.config())
    with acquire_lease(LocalFolder(inputs.store)) as lease:
        found, lines = info(inputs.store)
    (teacher,) = found["teachers"]
    assert not teacher["is_complete"]
    assert 0 < teacher["num_present"] < teacher["num_shards"]
    counts = teacher["status_counts"]
    assert sum(counts.values()) == 3 * teacher["num_people"]
    assert counts["not written"] > 0
    assert found["writer"]["run_id"] == lease.run_id
    text = "\n".join(lines)
    assert f"INCOMPLETE, {teacher['num_present']} of {teacher['num_shards']} shards" in text
    assert f"being written by  run {lease.run_id[:8]}" in text


@pytest.mark.usefixtures("whole")
def test_the_command_prints_either_and_refuses_a_path_without_a_store(inputs: Any) -> None:
    lines = CliRunner().invoke(main, ["store", "info", str(inputs.store)])
    assert lines.exit_code == 0
    assert lines.stdout.startswith(f"store             {inputs.store}\n")
    printed = CliRunner().invoke(main, ["store", "info", str(inputs.store), "--json"])
    assert json.loads(printed.stdout)["teachers"][0]["is_complete"]
    with pytest.raises(StoreError, match="must hold a teacher store"):
        info(inputs.folder)


@pytest.mark.parametrize("is_whole", [True, False])
def test_exported_poses_are_measured_as_the_store_itself(inputs: Any, is_whole: bool) -> None:
    if not is_whole:
        inputs.truncate(0)
    cache_teacher(inputs.config(skip_bad=True))
    output = inputs.folder / "out" / "results.json"
    result = store_export(StoreExportConfig(store=str(inputs.store), output=output))
    assert (result.missing is None) == is_whole
    assert result.num_poses == len(json.loads(output.read_text()))
    stored = evaluate(EvaluateStore(store=inputs.store))
    given = evaluate(EvaluatePredictions(predictions=output, annotations=inputs.annotations))
    assert given.report.row.own_score == stored.report.row.own_score
    assert given.report.row.mean_oks == stored.report.row.mean_oks


def test_an_unfinished_store_is_not_exported(inputs: Any) -> None:
    inputs.truncate(0)
    with pytest.raises(ImageError):
        cache_teacher(inputs.config())
    output = inputs.folder / "results.json"
    with pytest.raises(IncompleteError, match="must be complete"):
        store_export(StoreExportConfig(store=str(inputs.store), output=output))
    assert not output.exists()
