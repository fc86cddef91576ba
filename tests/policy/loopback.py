"""A real HTTP server on loopback that answers as a test's script tells it: well, or as badly as servers do."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dreamprm_cli.policy import Delta, Sampling
from dreamprm_cli.policy.remote import RemotePolicy
from dreamprm_cli.prompts import Prompt
from dreamprm_cli.types import FinishReason

PROMPT = Prompt(system="You write programs.", user="Add two numbers.", prefill="```python\n")
KEY = "sk-loopback-0123456789"
SAMPLING = Sampling()
PIECES = ["```python\n", "print(", "1)\n", "```"]
TEXT = "".join(PIECES)


class Exchange(BaseHTTPRequestHandler):
    """One request, as a test's script sees it: `body`, which `attempt` of its candidate it is, and ways to answer."""

    protocol_version = "HTTP/1.1"
    server: Loopback
    body: dict[str, Any]
    attempt: int

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.attempt = self.server.attempts[self.body.get("seed")]
            self.server.attempts[self.body.get("seed")] += 1
            self.server.bodies.append(self.body)
            self.server.keys.append(self.headers["authorization"])
            self.server.live += 1
            self.server.peak = max(self.server.peak, self.server.live)
        try:
            assert self.path == "/v1/chat/completions"
            self.server.script(self)
        except (BrokenPipeError, ConnectionResetError):
            self.server.hung_up.release()
        finally:
            with self.server.lock:
                self.server.live -= 1

    def refuse(self, status: int, message: str, **fields: Any) -> None:
        headers = fields.pop("headers", {})
        self.reply(status, json.dumps({"error": {"message": message, **fields}}).encode(), headers)

    def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def start(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def raw(self, line: str) -> None:
        """One server-sent event, as one HTTP chunk."""
        data = line.encode() + b"\n\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, **fields: Any) -> None:
        self.raw(f"data: {json.dumps({'id': 'x', 'object': 'chat.completion.chunk', 'model': 'm', **fields})}")

    def text(
        self, text: str, finish: str | None = None, index: int = 0, logprobs: list[float | None] | None = None
    ) -> None:
        choice: dict[str, Any] = {"index": index, "delta": {"content": text}, "finish_reason": finish}
        if logprobs is not None:
            choice["logprobs"] = {"content": [{"token": "t", "logprob": value} for value in logprobs]}
        self.event(choices=[choice])

    def end(self, usage: tuple[int, int] | None = None, finish: str | None = "stop") -> None:
        if finish:
            self.event(choices=[{"index": 0, "delta": {}, "finish_reason": finish}])
        if usage:
            self.event(choices=[], usage={"prompt_tokens": usage[0], "completion_tokens": usage[1]})
        self.raw("data: [DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def wait_for_hang_up(self) -> None:
        """Say nothing until the client closes the connection."""
        self.connection.settimeout(10)
        if self.connection.recv(1) == b"":
            self.server.hung_up.release()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Loopback(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, script: Callable[[Exchange], None]) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.script = script
        self.lock = threading.Lock()
        self.attempts: Counter[int | None] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.live = self.peak = 0
        self.hung_up = threading.Semaphore(0)  # released when a client closes a connection before its answer's end

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that hung up is no news here
            super().handle_error(request, client_address)

    def policy(self, **settings: Any) -> RemotePolicy:
        defaults: dict[str, Any] = {"api_key": KEY, "timeout_s": 5.0, "retries": 3, "backoff_s": 0.01}
        return RemotePolicy("m", base_url=f"http://127.0.0.1:{self.server_port}/v1", **{**defaults, **settings})


Script = Callable[[Exchange], None]
Serve = Callable[[Script], Loopback]


def good(exchange: Exchange) -> None:
    exchange.start()
    for piece in PIECES:
        exchange.text(piece)
    exchange.end(usage=(10, 7))


def run(policy: RemotePolicy, n: int = 1, sampling: Sampling = SAMPLING) -> dict[int, tuple[str, FinishReason]]:
    """All text and the finish reason of every candidate; asserts that each finishes once, and last."""
    return fold(policy.stream(PROMPT, range(n), sampling))


def fold(deltas: Iterator[Delta]) -> dict[int, tuple[str, FinishReason]]:
    texts: dict[int, str] = {}
    finished: dict[int, FinishReason] = {}
    for delta in deltas:
        assert delta.candidate not in finished
        texts[delta.candidate] = texts.get(delta.candidate, "") + delta.text
        if delta.finish_reason is not None:
            finished[delta.candidate] = delta.finish_reason
    assert texts.keys() == finished.keys()
    return {index: (texts[index], finished[index]) for index in sorted(texts)}
