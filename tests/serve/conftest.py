"""A scoring server on loopback, over any scorer, and a plain client for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamprm_cli.prm.scripted import ScriptedScorer
from dreamprm_cli.serve.engine import PlainEngine
from dreamprm_cli.serve.http import Limits, ScoringServer
from dreamprm_cli.serve.metrics import Metrics
from dreamprm_cli.serve.service import Service

sys.path.insert(0, str(Path(__file__).parent))  # web_server


class Running:
    """A server in a thread of its own."""

    def __init__(self, engine, *, queue=64, **options) -> None:
        metrics = Metrics()
        self.server = ScoringServer(("127.0.0.1", 0), Service(engine, metrics, queue), metrics, **options)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def ask(self, method, path, value=None, **headers):
        """(status, answer, headers) of one request on a connection of its own; `value` as JSON unless it is bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        body = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        with contextlib.closing(connection):
            connection.request(method, path, body, named)
            response = connection.getresponse()
            content = response.read()
        json_ = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(content) if json_ else content.decode(), response.headers

    def score(self, value, **headers):
        return self.ask("POST", "/score", value, **headers)

    def stop(self) -> None:
        if not self.server.draining:
            self.server.drain(timeout_s=10)
        self._thread.join()


@pytest.fixture
def start() -> Iterator[object]:
    """Start a server over a scorer's engine (a scripted one by default)."""
    running: list[Running] = []

    def begin(engine=None, **options):
        engine = engine or PlainEngine(ScriptedScorer({"good": 0.9, "bad": 0.1}))
        running.append(Running(engine, **options))
        return running[-1]

    yield begin
    for one in running:
        one.stop()


@pytest.fixture
def limits():
    return Limits
