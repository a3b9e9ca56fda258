"""A run of stage one that is interrupted at a known point."""

import os
import signal

import pytest

from stages.terminal import CachingProgress


def interrupt_after_the_first_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next run send itself a Ctrl-C as soon as a shard is there."""
    add_bytes = CachingProgress.add_bytes

    def interrupt(self: CachingProgress, count: int) -> None:
        add_bytes(self, count)
        monkeypatch.setattr(CachingProgress, "add_bytes", add_bytes)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(CachingProgress, "add_bytes", interrupt)
