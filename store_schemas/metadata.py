"""Metadata of a store: canonical JSON, its fingerprints, and untrusted JSON parsed in bounds.

Two comparisons: of identities field by field, and of a ``zarr.json`` with what the schema implies.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from store_schemas.errors import IdentityError, SchemaError

MAX_METADATA_BYTES = 1 << 20
MAX_DEPTH = 24
_DIGEST = re.compile("[0-9a-f]{64}")


def canonical_json(value: object) -> bytes:
    """Return the canonical JSON text of a value: keys sorted, no spaces, ASCII, no NaN.

    Raises:
        TypeError: a key is no string, or a value has no JSON form.
        ValueError: a number is not finite.
    """
    _check_keys(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping as JSON will return it: tuples as lists, plain types only."""
    result: dict[str, Any] = json.loads(canonical_json(dict(value)))
    return result


def _check_keys(value: object) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"keys of a JSON object must be strings, got {key!r}")
            _check_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_keys(item)


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Return the sha256 of the identity's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(dict(identity))).hexdigest()


def array_sha256(values: NDArray[Any]) -> str:
    """Return the sha256 of an array's type, shape and little-endian C-order bytes."""
    dtype = values.dtype.newbyteorder("<")
    digest = begin_array_sha256(values.dtype.name, values.shape)
    if values.size:
        digest.update(np.ascontiguousarray(values, dtype=dtype).data.cast("B"))
    return digest.hexdigest()


def begin_array_sha256(dtype: str, shape: tuple[int, ...]) -> "hashlib._Hash":
    """Return the start of an array's ``array_sha256``, to be fed its little-endian bytes."""
    return hashlib.sha256(canonical_json({"dtype": dtype, "shape": list(shape)}))


def content_sha256(manifest: Mapping[str, NDArray[Any]]) -> str:
    """Return the sha256 of a manifest's arrays, by name, and so of every byte a teacher wrote."""
    return fingerprint({name: array_sha256(values) for name, values in manifest.items()})


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves by dotted name; lists and empty objects are leaves."""
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping) and item:
            leaves |= flatten(item, f"{name}.")
        else:
            leaves[name] = item
    return leaves


def compare_identity(
    stored: Mapping[str, Any],
    now: Mapping[str, Any],
    fields: Iterable[str] | None = None,
    way_out: str = "use the store's value, or write another store",
) -> None:
    """Refuse the first field, in alphabetic order, in which two identities differ.

    Args:
        stored: The store's identity, or a part of it.
        now: The identity that is expected now.
        fields: Dotted names to compare, whole branches included; None compares everything.
        way_out: Instruction that ends the message.

    Raises:
        IdentityError: names the field, both values and the way out.
    """
    before, after = (  # as JSON, because Python holds that 1 == 1.0 == True
        {name: canonical_json(leaf).decode() for name, leaf in flatten(as_json(one)).items()}
        for one in (stored, now)
    )
    names = sorted(before.keys() | after.keys())
    if fields is not None:
        wanted = tuple(f"{field}." for field in fields)
        names = [name for name in names if f"{name}.".startswith(wanted)]
    different = [name for name in names if before.get(name) != after.get(name)]
    if not different:
        return
    name, more = different[0], len(different) - 1
    was, now_is = (_cut(texts.get(name, "<absent>")) for texts in (before, after))
    others = f" (and {more} more: {', '.join(different[1:4])})" if more else ""
    raise IdentityError(
        f"identity field '{name}' differs: the store has {was}, now it is {now_is}{others}; "
        f"{way_out}"
    )


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
    if not _is_whole(value):
        raise _refused(name, field, "a whole number of at most 2^40", value)
    return value


def take_size_hw(mapping: dict[str, Any], field: str, name: str) -> tuple[int, int]:
    """Return a (h, w) of 1 to 65,536 pixels each of a parsed object, or raise SchemaError."""
    value = mapping.get(field)
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(_is_whole(side) and 1 <= side <= 1 << 16 for side in value)
    ):
        raise _refused(name, field, "[height, width]", value)
    return value[0], value[1]


def take_object(mapping: dict[str, Any], field: str, name: str) -> dict[str, Any]:
    """Return an object inside a parsed object, or raise SchemaError."""
    value = mapping.get(field)
    if not isinstance(value, dict):
        raise _refused(name, field, "an object", value)
    return value


def take_ints(mapping: dict[str, Any], field: str, count: int, name: str) -> tuple[int, ...]:
    """Return so many whole numbers in [0, 2^40] of a parsed object, or raise SchemaError."""
    values = mapping.get(field)
    if not isinstance(values, list) or len(values) != count or not all(map(_is_whole, values)):
        raise SchemaError(f"{name}: '{field}' must be {count} whole numbers, got {values!r}")
    return tuple(values)


def take_digest(mapping: dict[str, Any], field: str, name: str) -> str:
    """Return a sha256 in hexadecimal of a parsed object, or raise SchemaError."""
    value = mapping.get(field)
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise _refused(name, field, "a sha256 digest", value)
    return value


def _is_whole(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= 1 << 40


def _refused(name: str, field: str, what: str, value: object) -> SchemaError:
    return SchemaError(f"{name}: '{field}' must be {what}, got {_short(value)}")


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
    return _cut(json.dumps(value))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
