"""Laws of keypoints stored alone: half a step, 11 bits of confidence, and no more."""

import numpy as np
import pytest

from store_schemas.errors import SchemaError
from store_schemas.formats import PROFILES, profile_from_json, profile_named
from store_schemas.keypoint_codec import KeypointProfile
from store_schemas.stored_identity import CodecIdentity
from store_schemas.teacher_store import StoreDimensions, planned_rows_per_shard

PROFILE = KeypointProfile.of_crops((256, 192))


def test_a_unit_is_a_64th_of_a_pixel_of_a_crop_of_256() -> None:
    assert PROFILE.step == 1 / 64
    assert KeypointProfile.of_crops((128, 512)).step == 1 / 32


def test_keypoints_and_confidences_are_as_near_as_they_say() -> None:
    random = np.random.default_rng(0)
    outputs = random.uniform(-40, 300, (5, 3, 17, 3)).astype(np.float32)
    outputs[..., 0] = random.uniform(-0.1, 1.3, (5, 3, 17))
    keypoints, confidences = PROFILE.quantise(outputs)
    assert keypoints.dtype == np.int16
    assert confidences.dtype == np.float16
    found = PROFILE.dequantise(keypoints)
    assert found.dtype == np.float32
    assert np.abs(found - outputs[..., 1:]).max() <= 1 / 128 + 1e-6
    difference = np.abs(confidences.astype(np.float32) - outputs[..., 0])
    assert (difference <= np.maximum(np.abs(outputs[..., 0]) * 2**-11, 2.0**-25)).all()


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (
            [0.5, 512.1, 3],
            "within 511.984 crop pixels of the crop's corner to be stored, got 512.094",
        ),
        ([0.5, 3, -513], "within 511.984 crop pixels"),
        ([7e4, 3, 3], "a confidence must be at most 65504 to be stored, got 70000"),
    ],
)
def test_what_cannot_be_stored_is_refused(outputs: list[float], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        PROFILE.quantise(np.array([[outputs]], np.float32))


def test_the_profile_is_found_by_name_and_read_back() -> None:
    assert profile_named("keypoints", (256, 192)) == PROFILE
    assert profile_named("small", (256, 192)) == PROFILES["small"]
    with pytest.raises(SchemaError, match="lossless-float16, keypoints, got 'none'"):
        profile_named("none", (256, 192))
    section = CodecIdentity(PROFILE, (64, 48), 0.0, 7)
    assert section.to_json() == {
        **{"profile": "keypoints", "step": 0.015625},
        **{"heatmap_size_hw": [64, 48], "rows_per_shard": 7},
    }
    assert CodecIdentity.from_json(section.to_json()) == section
    for step in (0.0, -1.0, 1, None, 1e9):
        with pytest.raises(SchemaError, match="'step' must be a number above 0"):
            profile_from_json({"profile": "keypoints", "step": step})


def test_a_view_takes_six_bytes_a_keypoint_and_a_shard_no_more_people_than_there_are() -> None:
    size = StoreDimensions(5, 1, 0, 1, 9, 17, (64, 48), 5, PROFILE)
    assert size.view_bytes == 102
    assert size.shard_arrays == ("keypoints", "confidences", "status")
    shape = (17, 64, 48)
    assert planned_rows_per_shard(PROFILE, size.optional, 5, 9, shape) == 5
    assert planned_rows_per_shard(PROFILE, size.optional, 10**6, 9, shape) == 113
    assert planned_rows_per_shard(PROFILES["default"], size.optional, 5, 9, shape) == 113
