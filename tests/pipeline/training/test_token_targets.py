"""Laws of tokens as targets: a store that a student cannot be compared with is refused at once."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.errors import ConfigError
from pipeline.models.token_encoder import TokenShape
from pipeline.teacher_store.reader import TeacherStore
from pipeline.training.store_sources import require_tokens
from store_schemas.formats import OptionalArrays, TokenFormat

SIXTEEN, SMALL = TokenShape(192, (16, 16)), TokenShape(192, (8, 6))
NARROW = TokenShape(128, (16, 16))


def store(*kinds: str) -> TeacherStore:
    tokens = TokenFormat(kinds, 192, (16, 16)) if kinds else None
    held = SimpleNamespace(path="s.zarr", optional=OptionalArrays(tokens=tokens))
    return cast(TeacherStore, held)


def test_tokens_of_the_students_sizes_are_accepted() -> None:
    require_tokens(store("keypoint", "visual"), "visual", SIXTEEN)
    require_tokens(store("keypoint"), "keypoint", SIXTEEN)


def test_keypoint_tokens_do_not_depend_on_the_grid() -> None:
    require_tokens(store("keypoint"), "keypoint", SMALL)


@pytest.mark.parametrize(
    ("kinds", "asked", "message"),
    [
        (
            (),
            ("visual", SIXTEEN),
            "s.zarr must hold visual tokens, got none; .*--tokens vis",
        ),
        (("keypoint",), ("visual", SIXTEEN), "got only keypoint tokens"),
        (
            ("keypoint",),
            ("keypoint", NARROW),
            "must have 192 channels, as those of s.zarr, got 128; choose a student",
        ),
        (
            ("visual",),
            ("visual", SMALL),
            "must have 16 x 16 patches, .*, got 8 x 6; choose a student",
        ),
    ],
)
def test_other_tokens_are_refused_by_both_values(
    kinds: tuple[str, ...], asked: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        require_tokens(store(*kinds), *asked)
