"""`distil benchmark codec` on real people with a real teacher, and what it prints."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from stages.benchmark_codec import benchmark_codec
from stages.commands.benchmark_tables import print_codec_study
from stages.settings.benchmark import BenchmarkCodecConfig
from store_schemas.formats import PROFILES
from tests.support.recorded_progress import RecordedProgress


@pytest.mark.shared
def test_the_benchmark_measures_every_profile_and_writes_what_it_prints(
    shared_folder: Path, tmp_path: Path
) -> None:
    data = shared_folder / "data/coco_sample"
    config = BenchmarkCodecConfig(
        annotations=data / "person_keypoints.json",
        images=data / "images",
        teacher=shared_folder / "teachers/ultralight_simplepose_256x192.onnx",
        people_count=6,
        views=1,
        output=tmp_path / "out",
    )
    progress = RecordedProgress()
    result = benchmark_codec(config, progress)
    assert progress.updates[-1] == (12, 12)
    assert result.written == tmp_path / "out/codec.json"
    document = json.loads(result.written.read_text())
    names = [candidate["name"] for candidate in document["candidates"]]
    assert names == ["float16; raw", *PROFILES]
    assert document["raw_float16_bytes"] == 17 * 64 * 48 * 2
    by_name = dict(zip(names, document["candidates"], strict=True))
    assert by_name["default"]["bytes_per_view"] < document["raw_float16_bytes"] / 10

    console = Console(file=io.StringIO(), width=80)
    print_codec_study(console, result.figures)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for name in PROFILES:
        row, _ = [line for line in printed.splitlines() if line.split()[:1] == [name]]
        assert f"{by_name[name]['bytes_per_view']:.0f}" in row
