"""A progress that records what it is told."""

from collections.abc import Mapping


class RecordedProgress:
    def __init__(self) -> None:
        self.updates: list[tuple[int, int]] = []

    def update(self, done: int, total: int, figures: Mapping[str, float] = {}) -> None:
        self.updates.append((done, total))
