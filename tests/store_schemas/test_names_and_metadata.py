"""Image names as bytes, and metadata that nobody vouches for."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store_schemas.errors import SchemaError
from store_schemas.metadata import (
    MAX_METADATA_BYTES,
    check_metadata,
    parse_json,
    take_int,
    take_size_hw,
)
from store_schemas.people import pack_names, unpack_names

NAME = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\\/"), min_size=1, max_size=9
).filter(lambda name: name != "..")


@given(st.lists(NAME, min_size=1, max_size=4))
def test_names_survive_the_round_trip(names: list[str]) -> None:
    rows = pack_names(tuple(names))
    assert rows.shape == (len(names), max(len(name.encode()) for name in names))
    assert unpack_names(rows) == tuple(names)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "a/../../b", "a\0b", "a\\b", "\ud800"])
def test_a_name_that_leaves_the_image_folder_is_refused(name: str) -> None:
    with pytest.raises(SchemaError, match="an image name must be"):
        pack_names((name,))


@pytest.mark.parametrize("row", [b"..", b"a\0b", b"\0\0", b"\xff\xfe"])
def test_a_stored_name_is_checked_like_a_given_one(row: bytes) -> None:
    with pytest.raises(SchemaError, match="must be"):
        unpack_names(np.frombuffer(row, np.uint8)[None])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "x must be JSON"),
        (b"\xff", "x must be JSON"),
        (b"[]", "x must be a JSON object, got list"),
        (b'{"a": 1, "a": 2}', "a key is repeated"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": -1e999}', "-1e999 is no finite number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "x must be JSON"),
        (b'{"a": ' + b"[" * 30 + b"]" * 30 + b"}", "nest at most 24"),
        (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "x must be JSON"),
        (b" " * (MAX_METADATA_BYTES + 1), "at most 1048576 bytes, got 1048577"),
    ],
)
def test_metadata_that_a_careful_writer_never_writes_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        parse_json(data, "x")


def test_metadata_is_compared_field_by_field() -> None:
    expected = {"shape": [2], "grid": {"chunk": [2]}}
    check_metadata(json.loads(json.dumps(expected)), expected, "n")
    with pytest.raises(SchemaError, match=r"n: field 'grid.chunk' must be \[2\], got \[3\]"):
        check_metadata({"shape": [2], "grid": {"chunk": [3]}}, expected, "n")
    with pytest.raises(SchemaError, match="n: field 'shape' is missing"):
        check_metadata({"grid": {"chunk": [2]}}, expected, "n")
    with pytest.raises(SchemaError, match="n: the fields must nest as in the schema"):
        check_metadata({"shape": [2], "grid.chunk": [2]}, expected, "n")
    with pytest.raises(SchemaError, match="n: field 'more' is not part of the schema"):
        check_metadata(expected | {"more": 1}, expected, "n")


@pytest.mark.parametrize("value", [-1, True, 1.0, "3", None, 1 << 41])
def test_only_whole_numbers_in_bounds_are_taken(value: object) -> None:
    with pytest.raises(SchemaError, match="'n' must be a whole number"):
        take_int({"n": value}, "n", "x")


@pytest.mark.parametrize("value", [[1], [0, 1], [1, 2, 3], "ab", [1.0, 2.0], [1, 1 << 17]])
def test_only_sizes_in_bounds_are_taken(value: object) -> None:
    with pytest.raises(SchemaError, match=r"'s' must be \[height, width\]"):
        take_size_hw({"s": value}, "s", "x")
