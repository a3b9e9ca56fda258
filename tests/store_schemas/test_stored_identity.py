"""Laws of the identity's records: read back as written, and nothing that they do not hold."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.storage.folder import LocalFolder
from store_schemas.errors import SchemaError
from store_schemas.identity import as_json, fingerprint
from store_schemas.layout import TeacherLayout
from store_schemas.optional_arrays import NONE, OptionalArrays, TokenFormat, crop_format
from store_schemas.profiles import PROFILES
from store_schemas.skeleton import Skeleton
from store_schemas.stored_identity import (
    CodecIdentity,
    PeopleIdentity,
    StoreIdentity,
    ViewsIdentity,
)

SKELETON = Skeleton(("nose", "left", "right"), ((0, 1), (0, 2)), (0, 2, 1), (0.026, 0.1, 0.1), (0,))
WITH_ALL = OptionalArrays(
    crop_format((32, 24), 90, "4:2:0"), TokenFormat(("keypoint", "visual"), 5, (2, 4))
)


def identity(optional: OptionalArrays = NONE, profile: str = "default") -> StoreIdentity:
    as_read = replace(PROFILES[profile], relative_threshold=0.0)  # the threshold is stored in heat
    return StoreIdentity(
        teacher={"sha256": "ab" * 32, "flip_test": True},
        people=PeopleIdentity(7, 3, 1, 12, 1, SKELETON, {"area": "0" * 64}),
        views=ViewsIdentity(2, (32, 24), -7, {"rotation": 40.0}, {"is_mirrored": "1" * 64}),
        codec=CodecIdentity(as_read, (8, 6), 0.01, 3),
        optional=optional,
    )


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("optional", [NONE, WITH_ALL])
def test_an_identity_is_read_back_as_written(profile: str, optional: OptionalArrays) -> None:
    written = identity(optional, profile)
    found = StoreIdentity.from_json(as_json(written.to_json()))
    assert found == written
    assert found.fingerprint == written.fingerprint == fingerprint(written.to_json())


def test_the_fingerprint_of_an_identity_never_changes() -> None:
    """It binds the stores that exist: field names and values on disk are those of schema 1."""
    assert (
        identity(WITH_ALL).fingerprint
        == "5633f7ecee31ea3b43e33b606caa020df52c459898f4cb7db8510a190a3f6133"
    )


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("people", {"more": 1}, r"identity: field 'people\.more' is not part of the schema"),
        ("views", {"more": {}}, r"identity: field 'views\.more' is not part of the schema"),
        ("codec", {"more": "x"}, r"identity: field 'codec\.more' is not part of the schema"),
        ("codec", {"threshold": 1}, r"identity\.codec: 'threshold' must be a number"),
        ("codec", {"threshold": -0.5}, r"identity\.codec: 'threshold' must be a number"),
        ("views", {"seed": 1.0}, r"identity\.views: 'seed' must be whole, got 1\.0"),
        ("views", {"recipe": []}, r"identity\.views: 'recipe' must be an object"),
        ("views", {"arrays": {"a": "b"}}, r"identity\.views\.arrays: 'a' must be a sha256 digest"),
        ("people", {"category_id": None}, r"identity\.people: 'category_id' must be a whole"),
    ],
)
def test_a_field_that_is_unknown_or_out_of_bounds_is_refused_by_its_name(
    section: str, change: dict[str, Any], message: str
) -> None:
    found = as_json(identity().to_json())
    found[section] = {**found[section], **change}
    with pytest.raises(SchemaError, match=f"^{message}"):
        StoreIdentity.from_json(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoint_names": []}, "'keypoint_names' must be 1 to 1024 names"),
        ({"sigmas": ["0.1"]}, "'sigmas' must be numbers"),
        ({"edges": [[0]]}, "'edges' must be pairs of keypoints"),
        ({"edges": [[0, 3]]}, r"indices must be in 0\.\.2, got \[0, 3\]"),
        ({"flip_indices": [0, 1, 1]}, "'flip_indices' must name every keypoint once"),
        ({"upper_body": None}, "'upper_body' must be a list, got None"),
    ],
)
def test_a_skeleton_that_points_outside_its_keypoints_is_refused(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(SchemaError, match=f"^skeleton: {message}"):
        Skeleton.from_json({**SKELETON.to_json(), **change})


def test_an_identity_names_the_arrays_that_a_store_has(tmp_path: Any) -> None:
    with pytest.raises(SchemaError, match=r"identity\.people: 'arrays' must name area, bbox_xywh"):
        TeacherLayout(LocalFolder(tmp_path), "hrnet", identity())
