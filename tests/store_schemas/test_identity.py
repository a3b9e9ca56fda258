"""Identity: one canonical text, and a comparison that names what differs."""

import numpy as np
import pytest

from store_schemas.errors import IdentityError
from store_schemas.metadata import array_sha256, canonical_json, compare_identity, fingerprint

STORED = {"teacher": {"sha256": "aa", "frame": "msra"}, "codec": {"threshold": 0.01}}


def test_the_order_of_keys_does_not_change_the_fingerprint() -> None:
    turned = {"codec": {"threshold": 0.01}, "teacher": {"frame": "msra", "sha256": "aa"}}
    assert fingerprint(turned) == fingerprint(STORED)
    assert canonical_json(turned).startswith(b'{"codec":{"threshold":0.01},"teacher":')


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    assert fingerprint({"a": [1, 2.5, "é", None, True]}) == (
        "64e904af38975654fe18d7b53d20d8531b4d681b1d3f7d669b56be6b77e2b89c"
    )


def test_what_has_no_json_form_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})
    with pytest.raises(TypeError, match="keys of a JSON object must be strings, got 1"):
        canonical_json({"a": [{1: 2}]})


def test_equal_identities_pass_through_tuples_and_lists() -> None:
    compare_identity({"a": [1, 2], "b": {}}, {"a": (1, 2), "b": {}})


def test_a_difference_names_field_both_values_and_the_way_out() -> None:
    now = {"teacher": {"sha256": "bb", "frame": "msra"}, "codec": {"threshold": 0.01}}
    message = r"field 'teacher.sha256' differs: the store has \"aa\", now it is \"bb\"; go away"
    with pytest.raises(IdentityError, match=message):
        compare_identity(STORED, now, way_out="go away")


def test_a_field_on_one_side_only_is_a_difference() -> None:
    with pytest.raises(IdentityError, match=r"'codec.threshold' differs: .* now it is <absent>"):
        compare_identity(STORED, {"teacher": STORED["teacher"]})
    with pytest.raises(IdentityError, match=r"'flips' differs: the store has <absent>, now .*2"):
        compare_identity(STORED, STORED | {"flips": 2})


def test_values_are_compared_by_their_json_type_too() -> None:
    with pytest.raises(IdentityError, match="the store has 1, now it is true"):
        compare_identity({"a": 1}, {"a": True})


def test_only_the_asked_fields_are_compared() -> None:
    other = STORED | {"codec": {"threshold": 0.5}}
    compare_identity(STORED, other, fields=["teacher"])
    with pytest.raises(IdentityError, match=r"codec\.threshold"):
        compare_identity(STORED, other, fields=["codec"])


def test_a_digest_binds_type_shape_and_values() -> None:
    values = np.arange(6, dtype=np.int64)
    digests = {
        array_sha256(values),
        array_sha256(values.reshape(2, 3)),
        array_sha256(values.view(np.uint64)),
        array_sha256(values + 1),
        array_sha256(values[:0]),
    }
    assert len(digests) == 5
    assert array_sha256(values) == array_sha256(values.astype(">i8"))
    assert array_sha256(values.reshape(2, 3).T) == array_sha256(
        np.ascontiguousarray(values.reshape(2, 3).T)
    )
