"""Numbers of things, in words."""

import pytest

from pipeline.wording import counted


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [
        (1, "shard", "1 shard"),
        (2, "shard", "2 shards"),
        (0, "shard", "0 shards"),
        (1, "person", "1 person"),
        (12, "person", "12 people"),
        (2, "process", "2 processes"),
        (2, "entry", "2 entries"),
        (1, "annotated person", "1 annotated person"),
        (3, "annotated person", "3 annotated people"),
        (3, "other part", "3 other parts"),
    ],
)
def test_one_thing_is_named_in_the_singular(number: int, noun: str, words: str) -> None:
    assert counted(number, noun) == words
