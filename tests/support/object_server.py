"""A real S3 API server on loopback, which can be made slow, full of errors, or end mid-answer."""

import logging
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from werkzeug.serving import make_server

WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]

BUCKET = "bucket"


class ObjectServer:
    """moto behind a middleware that injects faults and counts what was asked."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import (  # takes seconds
            DomainDispatcherApplication,
            create_backend_app,
        )

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app: WsgiApp = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self._numbers = threading.Lock()
        self.heal()

    def heal(self) -> None:
        """Answer at once and rightly from now on, and forget what was asked."""
        self.asked: Counter[str] = Counter()
        """Requests by method, ``GET`` and so on."""
        self.bodies: Counter[str] = Counter()
        """Whole objects that were asked for, by key."""
        self.seconds = 0.0
        """That every request takes longer."""
        self.is_broken: Callable[[int, dict[str, Any]], bool] = lambda number, environ: False
        """Whether a request, by its number, is answered with 503."""
        self.loses_answer: Callable[[int, dict[str, Any]], bool] = lambda number, environ: False
        """Whether a request is obeyed and then answered with 503."""
        self.breaks_off: Callable[[int, dict[str, Any]], bool] = lambda number, environ: False
        """Whether an answer ends in its middle."""
        self._number = 0

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._numbers:
            self._number += 1
            number = self._number
            self.asked[environ["REQUEST_METHOD"]] += 1
            if environ["REQUEST_METHOD"] == "GET":
                self.bodies[environ["PATH_INFO"]] += 1
        if self.seconds:
            time.sleep(self.seconds)
        if self.is_broken(number, environ):
            _drain(environ)
            return _say_unavailable(start_response)
        if self.loses_answer(number, environ):
            b"".join(self._app(environ, lambda *_, **__: None))
            return _say_unavailable(start_response)
        answer = self._app(environ, start_response)
        return _half(answer) if self.breaks_off(number, environ) else answer


def _say_unavailable(start_response: Any) -> list[bytes]:
    start_response("503 Slow Down", [("Content-Type", "application/xml")])
    return [b"<Error><Code>SlowDown</Code></Error>"]


def _drain(environ: dict[str, Any]) -> None:
    """Take what is sent, as servers do that answer at all."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length:
        environ["wsgi.input"].read(length)


def _half(answer: Iterable[bytes]) -> Iterator[bytes]:
    whole = b"".join(answer)
    yield whole[: len(whole) // 2]


def start_server() -> ObjectServer:
    """Return a server with an empty bucket of the name ``BUCKET``."""
    server = ObjectServer()
    make_bucket = urllib.request.Request(f"{server.url}/{BUCKET}", method="PUT")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(make_bucket).close()
    return server


def use_server(patch: pytest.MonkeyPatch, server: ObjectServer) -> None:
    """Let the environment of this process, and of those it starts, name the server."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "AWS_PROFILE"):
        patch.delenv(name, raising=False)
    patch.setenv("AWS_ENDPOINT_URL", server.url)
    patch.setenv("AWS_ALLOW_HTTP", "true")
    patch.setenv("AWS_ACCESS_KEY_ID", "key")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    patch.setenv("AWS_REGION", "us-east-1")
