"""Untrusted metadata of a store: parsed in bounds, and compared with what the schema implies."""

import json
import math
import re
from typing import Any

from store_schemas.errors import SchemaError
from store_schemas.identity import canonical_json, flatten

MAX_METADATA_BYTES = 1 << 20
MAX_DEPTH = 24
_DIGEST = re.compile("[0-9a-f]{64}")


def parse_json(data: bytes, name: str) -> dict[str, Any]:
    """Return a JSON object, refusing what a careful writer never writes.

    Raises:
        SchemaError: too large or deep, no JSON object, a repeated key, or a NaN.
    """
    if len(data) > MAX_METADATA_BYTES:
        raise SchemaError(f"{name} must have at most {MAX_METADATA_BYTES} bytes, got {len(data)}")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"{name} must be JSON, got: {error}") from error
    if not isinstance(value, dict):
        raise SchemaError(f"{name} must be a JSON object, got {type(value).__name__}")
    _check_depth(value, name)
    return value


def check_metadata(found: dict[str, Any], expected: dict[str, Any], name: str) -> None:
    """Compare a ``zarr.json`` with the one that schema and identity imply.

    Raises:
        SchemaError: names the first field that differs, expected and got.
    """
    if canonical_json(found) == canonical_json(expected):
        return
    want, got = flatten(expected), flatten(found)
    for field in sorted(want.keys() | got.keys()):
        if field not in want:
            raise SchemaError(f"{name}: field {field!r} is not part of the schema")
        if field not in got:
            raise SchemaError(f"{name}: field '{field}' is missing")
        if canonical_json(want[field]) != canonical_json(got[field]):
            raise SchemaError(
                f"{name}: field '{field}' must be {_short(want[field])}, got {_short(got[field])}"
            )
    raise SchemaError(f"{name}: the fields must nest as in the schema; a name holds a dot")


def take_int(mapping: dict[str, Any], field: str, name: str) -> int:
    """Return a whole number in [0, 2^40] of a parsed object, or raise SchemaError."""
    value = mapping.get(field)
    if type(value) is not int or not 0 <= value <= 1 << 40:
        raise SchemaError(
            f"{name}: '{field}' must be a whole number of at most 2^40, got {_short(value)}"
        )
    return value


def take_size_hw(mapping: dict[str, Any], field: str, name: str) -> tuple[int, int]:
    """Return a (h, w) of 1 to 65,536 pixels each of a parsed object, or raise SchemaError."""
    value = mapping.get(field)
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(type(side) is int and 1 <= side <= 1 << 16 for side in value)
    ):
        raise SchemaError(f"{name}: '{field}' must be [height, width], got {_short(value)}")
    return value[0], value[1]


def take_object(mapping: dict[str, Any], field: str, name: str) -> dict[str, Any]:
    """Return an object inside a parsed object, or raise SchemaError."""
    value = mapping.get(field)
    if not isinstance(value, dict):
        raise SchemaError(f"{name}: '{field}' must be an object, got {_short(value)}")
    return value


def take_ints(mapping: dict[str, Any], field: str, count: int, name: str) -> tuple[int, ...]:
    """Return so many whole numbers in [0, 2^40] of a parsed object, or raise SchemaError."""
    values = mapping.get(field)
    if (
        not isinstance(values, list)
        or len(values) != count
        or not all(type(value) is int and 0 <= value <= 1 << 40 for value in values)
    ):
        raise SchemaError(f"{name}: '{field}' must be {count} whole numbers, got {values!r}")
    return tuple(values)


def take_digest(mapping: dict[str, Any], field: str, name: str) -> str:
    """Return a sha256 in hexadecimal of a parsed object, or raise SchemaError."""
    value = mapping.get(field)
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise SchemaError(f"{name}: '{field}' must be a sha256 digest, got {_short(value)}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is repeated")
    return result


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits:.20} is no finite number")
    return number


def _check_depth(value: dict[str, Any], name: str) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inside = [list(v.values()) if isinstance(v, dict) else v for v in level]
        level = [item for items in inside for item in items if isinstance(item, dict | list)]
        if not level:
            return
    raise SchemaError(f"{name} must nest at most {MAX_DEPTH} levels deep")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
