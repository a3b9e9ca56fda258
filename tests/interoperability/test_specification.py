"""What docs/teacher-store.md says of the arrays is what the schema says, and its example runs."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.frames.geometry import apply, invert
from pipeline.teacher_store.reader import TeacherStore
from store_schemas.array_table import array_specs
from store_schemas.formats import NONE, PROFILES, OptionalArrays, TokenFormat, crop_format
from store_schemas.heatmap_codec import dequantise_heatmaps
from store_schemas.keypoint_codec import KeypointProfile
from store_schemas.teacher_store import SHARD_ARRAYS, ArraySpec, StoreDimensions
from tests.support.generated_store import write_store

TEXT = (Path(__file__).resolve().parents[2] / "docs/teacher-store.md").read_text()
ROW = re.compile(r"^\| `([\w/]+)` \| (.+?) \| ([\w, ]+) \| (.+?) \|", flags=re.MULTILINE)
LETTERS = {"N": 101, "M": 103, "R": 107, "L": 109, "V": 5, "K": 7, "Hh": 11, "Wh": 13}


def specs(profile: str, optional: OptionalArrays = NONE) -> dict[str, ArraySpec]:
    n, m, r, length, v, k, rows, columns = LETTERS.values()
    size = StoreDimensions(n, m, r, length, v, k, (rows, columns), 3, PROFILES[profile], optional)
    return {path.replace("/name/", "/NAME/"): s for path, s in array_specs(size, "name").items()}


def documented() -> dict[str, tuple[str, str, str]]:
    return {name: (dtype, shape, fill) for name, dtype, shape, fill in ROW.findall(TEXT)}


@pytest.mark.parametrize(("profile", "alternative"), [("default", 0), ("lossless-float16", -1)])
def test_every_array_is_documented_with_type_shape_and_fill_value(
    profile: str, alternative: int
) -> None:
    expected = specs(profile)
    letters = LETTERS | {"S": -(-LETTERS["N"] // 3), "A": len(SHARD_ARRAYS)}
    found = documented()
    required = [name for name in found if name in expected]
    assert required == list(expected), "all of them, in the schema's order"
    for name, spec in expected.items():
        dtype, shape, fill = found[name]
        sizes = [letters.get(part) or int(part) for part in shape.split(", ")]
        assert dtype.split(" or ")[alternative] == spec.dtype, name
        assert sizes == list(spec.shape), name
        assert fill.split(" or ")[alternative] == str(spec.fill_value).lower().replace("nan", "NaN")


@pytest.mark.parametrize(("dtype_of_tokens", "alternative"), [("int8", 0), ("float16", -1)])
def test_crops_and_tokens_are_documented_too(dtype_of_tokens: str, alternative: int) -> None:
    optional = OptionalArrays(
        crop_format((256, 192), 90, "4:2:0"),
        TokenFormat(("keypoint", "visual"), 31, (3, 5), dtype_of_tokens),
    )
    letters = LETTERS | {"C": 3 * 256 * 192 + 1024, "D": 31, "P": 15}
    found, expected = documented(), specs("default", optional)
    names = [f"teachers/NAME/{name}" for name in optional.names()]
    assert [name for name in found if name in names] == names, "in the order of a shard's files"
    for name in names:
        dtype, shape, fill = found[name]
        sizes = [letters[part] for part in shape.split(", ")]
        spec = expected[name]
        dtype, fill = (each.split(" or ")[alternative] for each in (dtype, fill))
        assert (dtype, sizes, fill) == (spec.dtype, list(spec.shape), str(spec.fill_value)), name


def test_the_arrays_of_keypoints_alone_are_documented_too() -> None:
    n, m, r, length, v, k, rows, columns = LETTERS.values()
    profile = KeypointProfile.of_crops((256, 192))
    size = StoreDimensions(n, m, r, length, v, k, (rows, columns), 3, profile)
    expected, found = array_specs(size, "name"), documented()
    for name in ("keypoints", "confidences"):
        dtype, shape, fill = found[f"teachers/NAME/{name}"]
        spec = expected[f"teachers/name/{name}"]
        sizes = [LETTERS.get(part) or int(part) for part in shape.split(", ")]
        assert (dtype, sizes, fill) == (spec.dtype, list(spec.shape), str(spec.fill_value)), name
    assert "teachers/name/heatmaps" not in expected
    assert "teachers/name/outputs" not in expected


@pytest.mark.parametrize("profile", ["default", "lossless-float16"])
def test_the_example_reads_what_this_program_reads(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    write_store(tmp_path / "teacher.zarr", profile, 2)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(code, found)
    stored = TeacherStore.open(tmp_path / "teacher.zarr").read([0], [0])
    np.testing.assert_array_equal(
        found["heat"], dequantise_heatmaps(stored.heatmaps, stored.scale)[0]
    )
    np.testing.assert_array_equal(found["confidence"], stored.confidence[0])
    in_image = apply(invert(stored.image_to_crop[0]), stored.keypoints[0])
    np.testing.assert_allclose(found["in_image"], in_image, rtol=1e-6)
