"""Wording of messages: numbers with their noun, errors in one line, functions that show a line."""

from collections.abc import Callable, Sequence

Log = Callable[[str], None]
"""Shows the user one line."""

_IRREGULAR = {"entry": "entries", "person": "people", "process": "processes"}


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 shard, 2 shards, 0 people.

    noun: the noun in the singular; of several words the last one gets the plural.
    """
    if number == 1:
        return f"1 {noun}"
    *words, last = noun.split(" ")
    return " ".join([str(number), *words, _IRREGULAR.get(last, f"{last}s")])


def in_series(names: Sequence[str]) -> str:
    """Return names as in a sentence: a; a and b; a, b and c."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def one_line(error: Exception) -> str:
    """Return the message of a library's error as one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]
