"""Laws of what an identity says of crops and tokens: read back as written, or refused."""

from typing import Any

import pytest

from store_schemas.errors import SchemaError
from store_schemas.optional_arrays import NONE, OptionalArrays, TokenFormat, crop_format

SIZE_HW = (256, 192)
CROPS = crop_format(SIZE_HW, 90, "4:2:0")
TOKENS = TokenFormat(("keypoint", "visual"), 192, (16, 16))


@pytest.mark.parametrize(
    "optional",
    [NONE, OptionalArrays(CROPS), OptionalArrays(tokens=TOKENS), OptionalArrays(CROPS, TOKENS)],
)
def test_what_was_written_is_read_back(optional: OptionalArrays) -> None:
    assert OptionalArrays.from_json(optional.to_json(), SIZE_HW) == optional


def test_a_store_without_options_has_neither_section_nor_array() -> None:
    assert NONE.to_json() == {}
    assert NONE.names() == ()
    assert NONE.view_bytes(17) == 0


def test_the_bytes_of_a_view_are_those_of_its_largest_tokens() -> None:
    assert OptionalArrays(CROPS).view_bytes(17) == 0  # JPEGs are padded one by one, never together
    assert OptionalArrays(CROPS, TOKENS).view_bytes(17) == 256 * 192 * 2
    assert OptionalArrays(None, TokenFormat(("keypoint",), 192, (16, 16))).view_bytes(17) == 6528


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("crops", {"quality": 0}, "quality of crops must be 1 to 95, got 0"),
        ("crops", {"quality": 96}, "quality of crops must be 1 to 95, got 96"),
        ("crops", {"quality": "90"}, "'quality' must be a whole number"),
        ("crops", {"subsampling": "4:1:1"}, "subsampling of crops must be 4:4:4 or 4:2:0"),
        ("crops", {"length": 1 << 39}, "identity.crops must be"),
        ("crops", {"more": 1}, "identity.crops must be"),
        ("tokens", {"kinds": []}, "identity.tokens must name kinds of keypoint, visual"),
        ("tokens", {"kinds": ["visual", "keypoint"]}, "identity.tokens must name kinds"),
        ("tokens", {"kinds": 3}, "identity.tokens must name kinds"),
        ("tokens", {"dim": 0}, "a dim of 1 to 65536"),
        ("tokens", {"dim": 1 << 30}, "a dim of 1 to 65536"),
        ("tokens", {"grid": [16]}, "'grid' must be"),
    ],
)
def test_a_section_out_of_bounds_is_refused(
    section: str, change: dict[str, Any], message: str
) -> None:
    found = OptionalArrays(CROPS, TOKENS).to_json()
    found[section] = {**found[section], **change}
    with pytest.raises(SchemaError, match=message):
        OptionalArrays.from_json(found, SIZE_HW)
