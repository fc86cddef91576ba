"""Lets the tests of this folder import `loopback`, `tiny_model` and `writing`; servers for the remote policy."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from loopback import Loopback, Script, Serve


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[tuple[Loopback, threading.Thread]] = []

    def start(script: Script) -> Loopback:
        server = Loopback(script)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
