"""Canonical JSON, fingerprints and digests, and the comparison of identities field by field."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store_schemas.errors import IdentityError

ABSENT = "<absent>"


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
    digests = {name: array_sha256(values) for name, values in manifest.items()}
    return hashlib.sha256(canonical_json(digests)).hexdigest()


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
    before, after = flatten(as_json(stored)), flatten(as_json(now))
    names = sorted(before.keys() | after.keys())
    if fields is not None:
        wanted = tuple(fields)
        names = [name for name in names if _is_under(name, wanted)]
    different = [name for name in names if not _is_same(before, after, name)]
    if not different:
        return
    name, more = different[0], len(different) - 1
    others = f" (and {more} more: {', '.join(different[1:4])})" if more else ""
    raise IdentityError(
        f"identity field '{name}' differs: the store has {_show(before, name)}, "
        f"now it is {_show(after, name)}{others}; {way_out}"
    )


def _is_under(name: str, branches: tuple[str, ...]) -> bool:
    return any(name == branch or name.startswith(f"{branch}.") for branch in branches)


def _is_same(before: dict[str, Any], after: dict[str, Any], name: str) -> bool:
    if (name in before) != (name in after):
        return False
    # through JSON, because Python holds that 1 == 1.0 == True
    return canonical_json(before[name]) == canonical_json(after[name])


def _show(leaves: dict[str, Any], name: str) -> str:
    if name not in leaves:
        return ABSENT
    text = canonical_json(leaves[name]).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."
