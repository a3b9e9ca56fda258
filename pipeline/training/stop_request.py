"""An early end of a training, on SIGTERM or Ctrl-C: after the step that runs, with a checkpoint."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import Stopped
from pipeline.machine import stop_signals_to


class StopRequest:
    """Whether a training must stop, and why; a second Ctrl-C ends it without a checkpoint."""

    def __init__(self) -> None:
        self.reason: str | None = None
        """None: it goes on."""
        self._stops_at_once = False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take SIGTERM and Ctrl-C for requests, within the context.

        Raises:
            KeyboardInterrupt: at a second Ctrl-C.
        """
        with stop_signals_to(self._request):
            yield

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Stop as soon as it is requested, within the context, where nothing would be lost.

        Raises:
            Stopped: a stop was requested.
        """
        self.check()
        self._stops_at_once = True
        try:
            yield
        finally:
            self._stops_at_once = False

    def check(self) -> None:
        """Stop here if that was requested.

        Raises:
            Stopped: a stop was requested.
        """
        if self.reason is not None:
            raise Stopped(self.reason)

    def _request(self, number: int) -> None:
        if self.reason is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.reason = "stopped by SIGTERM" if number == signal.SIGTERM else "stopped"
        if self._stops_at_once:
            raise Stopped(self.reason)
