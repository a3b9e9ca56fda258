"""Laws of verifying: what is wrong is named, all of it, and what was not looked at is said."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cli import main
from pipeline.errors import ConfigError, TeacherError
from pipeline.repair import recomputation
from pipeline.repair.recomputation import spread_views
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teachers import Teacher
from pipeline.teachers.network import Prediction
from stages.cache_teacher import cache_teacher
from stages.demo import TEACHER as DEMO_TEACHER
from stages.settings.evaluation import StoreVerifyConfig
from stages.store_verify import VerifyResult, disagreement_as_lines, store_verify
from store_schemas.errors import IdentityError
from store_schemas.teacher_store import Status
from tests.support.recorded_progress import RecordedProgress

SHOWN = "views predicted again"


def verify(inputs: Any, **settings: Any) -> VerifyResult:
    given = {
        "teacher": inputs.folder / "teacher.onnx",
        "images": inputs.images,
        "annotations": inputs.annotations,
    }
    return store_verify(StoreVerifyConfig(store=str(inputs.store), **(given | settings)))


def faults(result: VerifyResult) -> dict[str, list[str]]:
    return {kind: lines for kind, lines in result.problems.items() if lines}


def flip(path: Path, position: int = -9) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def chunk(inputs: Any, array: str, place: int = 0) -> Path:
    (path,) = (inputs.store / array).glob(f"c.{place}*")
    return Path(path)


@pytest.mark.usefixtures("whole")
def test_a_store_agrees_with_all_it_was_made_from(inputs: Any) -> None:
    progress = RecordedProgress()
    config = StoreVerifyConfig(
        store=str(inputs.store),
        teacher=inputs.folder / "teacher.onnx",
        images=inputs.images,
        annotations=inputs.annotations,
        sample=10,
    )
    result = store_verify(config, progress)
    assert (result.failed, result.unchecked) == (None, [])
    num_shards = TeacherStore.open(inputs.store).num_shards
    assert result.checked[0] == f"metadata and {num_shards} of {num_shards} shards"
    assert result.checked[-1] == f"10 {SHOWN}"
    found = result.disagreement
    assert found is not None
    assert found.num_views == 10
    assert found.arithmetic <= 1e-6 < found.codec <= found.bound
    assert found.excess <= -0.9e-3
    assert (found.confidence, found.keypoint) == pytest.approx((0, 0), abs=1e-3)
    assert progress.updates[-1] == (num_shards + 6 + 10,) * 2
    assert "kept with" in " ".join(disagreement_as_lines(found))


@pytest.mark.usefixtures("whole")
def test_everything_that_is_wrong_is_named_and_the_rest_is_looked_at(inputs: Any) -> None:
    flip(chunk(inputs, "teachers/teacher/heatmaps", 1))
    chunk(inputs, "teachers/teacher/outputs", 3).unlink()
    flip(inputs.store / "teachers/teacher/status/zarr.json")
    path = inputs.image_of_row(0)
    path.write_bytes(path.read_bytes() + b"\0")
    inputs.edit(lambda document: document["annotations"][2]["bbox"].__setitem__(2, 9.0))
    (inputs.store / "thesis.txt").write_text("dear")
    result = verify(inputs)
    found = faults(result)
    assert [line.split(":")[0] for line in found["shards"]] == ["shard 1", "shard 3"]
    assert "teachers/teacher/heatmaps/c.1.0.0.0.0 must have sha256" in found["shards"][0]
    assert "teachers/teacher/outputs/c.3.0.0.0 is missing" in found["shards"][1]
    assert found["metadata"] == [line for line in found["metadata"] if "status/zarr.json" in line]
    assert len(found["metadata"]) == 1
    assert [path.name in line for line in found["images"]] == [True]
    assert "'people.bbox_xywh' differs: of annotation" in found["people"][0]
    assert "1 file that belong to no store, such as thesis.txt" in result.unchecked
    assert result.failed is not None
    assert "2 of shards, 1 of images, 1 of people" in result.failed


@pytest.mark.usefixtures("whole")
def test_damaged_people_and_manifest_are_named_array_by_array(inputs: Any) -> None:
    arrays = ["people/area", "views/is_mirrored", "teachers/teacher/manifest/lengths"]
    for array in arrays:
        flip(chunk(inputs, array), 1)
    result = verify(inputs)
    assert [line.split("/c.")[0] for line in faults(result)["metadata"]] == arrays
    assert "shards: the manifest, which holds their digests, is damaged" in result.unchecked
    assert "images: people are damaged" in result.unchecked
    assert result.disagreement is None


@pytest.mark.usefixtures("whole")
def test_damaged_views_are_left_to_the_digests_and_the_others_shown_again(inputs: Any) -> None:
    flip(chunk(inputs, "teachers/teacher/heatmaps", 1))
    result = verify(inputs, sample=1000)
    store = TeacherStore.open(inputs.store)
    assert f"{(store.people.num_instances - 2) * store.num_views} {SHOWN}" in result.checked
    assert faults(result).keys() == {"shards"}


@pytest.mark.usefixtures("whole")
def test_another_teacher_is_refused_by_the_field_that_differs(inputs: Any) -> None:
    inputs.write_teacher(seed=1)
    with pytest.raises(
        IdentityError, match=r"'teacher\.sha256' differs: .* now it is .*; give the"
    ):
        verify(inputs)
    assert verify(inputs, digests_only=True).failed is None


@pytest.mark.usefixtures("whole")
def test_a_teacher_of_another_input_size_is_refused_without_naming_options(inputs: Any) -> None:
    """No option was given, so none can be left out."""
    with pytest.raises(
        TeacherError, match="give the teacher that the store was written"
    ) as refusal:
        verify(inputs, teacher=DEMO_TEACHER)
    assert "option" not in str(refusal.value)


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize(
    ("distortion", "is_seen"), [(1 + 1e-4, False), (1.05, True), (np.nan, True)]
)
def test_a_teacher_that_says_something_else_is_seen(
    inputs: Any, monkeypatch: pytest.MonkeyPatch, distortion: float, is_seen: bool
) -> None:
    """Beyond the codec's bound and the tolerance; not below."""
    predict = Teacher.predict

    def distorted(self: Teacher, *given: Any) -> Prediction:
        prediction = predict(self, *given)
        heatmaps = prediction.heatmaps * np.float32(distortion)
        return prediction._replace(heatmaps=heatmaps)

    monkeypatch.setattr(Teacher, "predict", distorted)
    result = verify(inputs, sample=5)
    assert (result.failed is not None) == is_seen
    if is_seen:
        assert len(faults(result)[SHOWN]) == 5
        assert faults(result)[SHOWN][0].startswith("shard 0, row ")
        assert "5 of views predicted again" in str(result.failed)
    assert result.disagreement is not None
    assert (result.disagreement.arithmetic > 0) == np.isfinite(distortion)


@pytest.mark.usefixtures("whole")
def test_what_is_not_there_any_more_is_said(inputs: Any) -> None:
    result = verify(inputs, teacher=None, images=None, annotations=None)
    assert result.failed is None
    assert [line.split(":")[0] for line in result.unchecked] == [
        "images",
        "annotations",
        "the teacher's predictions",
    ]
    with pytest.raises(ConfigError, match="--images nowhere does not exist"):
        verify(inputs, images=Path("nowhere"))


def test_paths_and_settings_default_to_what_was_recorded(
    inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.runs.run_folder import provenance
    from stages import cache_teacher as stage

    monkeypatch.setattr(stage, "provenance", provenance)
    inputs.edit(lambda document: document["annotations"][0].pop("area"))
    cache_teacher(inputs.config(people__area_fraction=0.5))
    result = verify(inputs, teacher=None, images=None, annotations=None, sample=1)
    assert (result.failed, result.unchecked, len(result.checked)) == (None, [], 4)


def test_an_incomplete_store_is_compared_with_its_receipts(inputs: Any) -> None:
    from pipeline.errors import ImageError

    path = inputs.truncate(0)
    with pytest.raises(ImageError):
        cache_teacher(inputs.config())
    flip(chunk(inputs, "teachers/teacher/heatmaps", 4))
    receipt = inputs.store / "teachers/teacher/manifest/000005.json"
    receipt.write_bytes(receipt.read_bytes()[:40])
    result = verify(inputs)
    assert [line.split(":")[0] for line in faults(result)["shards"]] == ["shard 5", "shard 4"]
    assert "2 shards not written yet" in result.unchecked
    assert path.name not in str(faults(result))


@pytest.mark.usefixtures("whole")
def test_the_command_names_ten_faults_of_a_kind_counts_the_others_and_exits_with_1(
    inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.commands.store.NAMED_FAULTS", 2)
    for path in sorted(inputs.images.iterdir()):
        flip(path)
    line = ["store", "verify", str(inputs.store), "--images", str(inputs.images), "--digests-only"]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 1
    named = [text for text in result.stdout.splitlines() if text.startswith("FAULT of images")]
    assert len(named) == 3
    assert named[-1] == "FAULT of images: 4 more, 6 in all"
    assert result.stderr.startswith(f"distil: {inputs.store} must be as it was written, but has fa")
    shutil.rmtree(inputs.images)
    assert CliRunner().invoke(main, [*line[:3], "--digests-only"]).exit_code == 0


@pytest.mark.parametrize("num_wanted", [0, 1, 7, 500])
def test_sampled_views_are_spread_over_all_that_are_there(num_wanted: int) -> None:
    status = np.full((40, 3), Status.OK, np.uint8)
    status[::4] = Status.IMAGE_UNREADABLE
    rows, views = spread_views(status, num_wanted, seed=0)
    assert len(rows) == min(num_wanted, 90)
    assert (status[rows, views] == Status.OK).all()
    assert len(set(zip(rows.tolist(), views.tolist(), strict=True))) == len(rows)
    if num_wanted == 7:
        stretches = np.searchsorted(np.linspace(0, 40, 8), rows, side="right")
        assert np.abs(stretches - np.arange(1, 8)).max() <= 1
        others = spread_views(status, num_wanted, seed=1)
        assert (others[0] != rows).any() | (others[1] != views).any()


def test_the_stated_tolerance_is_the_one_that_is_printed(inputs: Any) -> None:
    found = recomputation.Disagreement(num_views=1, excess=0.5)
    lines = " ".join(disagreement_as_lines(found))
    assert f"{recomputation.ARITHMETIC_TOLERANCE:g} for arithmetic" in lines
    assert "exceeded by 0.5" in lines
