"""The code of docs/python.md runs, block after block."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.runs.run_folder import RunFolder
from stages.settings.training import TrainStudentConfig
from tests.support.evaluation_sample import draw_sample, save_network, write_store

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    sample = draw_sample(tmp_path / "images")
    shutil.move(write_store(sample), tmp_path / "teacher.zarr")
    shutil.move(sample.annotations, tmp_path / "val.json")
    run = RunFolder(tmp_path / "runs" / "a")
    run.best_weights.parent.mkdir(parents=True)
    settings = TrainStudentConfig.model_validate({"store": "teacher.zarr", "images": "images"})
    (tmp_path / "runs" / "a" / "config.json").write_text(settings.to_json())
    save_network(run.best_weights)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, block {number + 1}", "exec"), names)
    assert len(blocks) == 5
    assert names["views"].heatmaps.shape[:2] == (3, 17)
    assert names["poses"].keypoints.shape == names["whole"].keypoints.shape == (1, 17, 2)
    assert (tmp_path / "drawn.png").is_file()
    assert names["found"].num_images == 3
    assert "poses in 3 images" in capsys.readouterr().out
