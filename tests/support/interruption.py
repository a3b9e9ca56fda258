"""A run of stage one that is interrupted at a known point."""

import os
import signal

import pytest

from pipeline.progress import ShardProgress


def interrupt_after_the_first_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next run send itself a Ctrl-C as soon as a shard is there."""
    add_bytes = ShardProgress.add_bytes

    def interrupt(self: ShardProgress, count: int) -> None:
        add_bytes(self, count)
        monkeypatch.setattr(ShardProgress, "add_bytes", add_bytes)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ShardProgress, "add_bytes", interrupt)
