"""HTTP for the scoring server, on the standard library: requests, limits, the token.

    GET  /health    {"status": "ok", ...}; without the token, the status alone
    GET  /metrics   Prometheus's text
    POST /score     {"problem", "code", "language"?} -> {"reward", "steps": [...]}, or the form of `prm.wire`

What is wrong is answered with {"error": LINE}: 400 a malformed request, 401 the token, 404 and 405 a wrong path or
method, 408 sent too slowly, 411 no Content-Length, 413 too large, 429 a full queue (Retry-After tells when to come
back), 500 our own failure, 503 stopping, or too many connections.
"""

from __future__ import annotations

import hmac
import json
import socket
import socketserver
import threading
import time
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dreamprm_cli import __version__
from dreamprm_cli.aggregate import aggregate
from dreamprm_cli.errors import DreamPRMError
from dreamprm_cli.events import SCHEMA_VERSION
from dreamprm_cli.prm.wire import RequestError, ScoreAnswer, ScoreRequest, number, parse_problem, parse_request
from dreamprm_cli.prompts import PRM_TEMPLATE_VERSION
from dreamprm_cli.serve.engine import TooLarge
from dreamprm_cli.serve.metrics import CONTENT_TYPE, Metrics
from dreamprm_cli.serve.service import Busy, Service, Stopping
from dreamprm_cli.steps import SPLITTER_VERSION, split

_PATHS = {"/health": "GET", "/metrics": "GET", "/score": "POST"}
_LINGER_S, _LINGER_BYTES = 2.0, 8 << 20  # what is still read of a refused request, so that its sender learns why


@dataclass(frozen=True, slots=True)
class Limits:
    """body_bytes: of a request. silence_s: how long a client may say nothing within a request, or between two.
    connections: at once. answer_s: how long a request may wait and be scored."""

    body_bytes: int = 1 << 20
    silence_s: float = 30.0
    connections: int = 256
    answer_s: float = 300.0


class _Refused(Exception):
    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


class ScoringServer(ThreadingHTTPServer):
    """Listens from the start; `serve_forever` answers, `drain` (from another thread) ends it gracefully."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        service: Service,
        metrics: Metrics,
        *,
        aggregation: str = "mean",
        token: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.service, self.metrics = service, metrics
        self.aggregation, self.token = aggregation, token
        self.limits = limits or Limits()
        self.draining = False
        self._open: set[socket.socket] = set()  # connections, a thread each
        self._busy = 0  # requests that are being read, scored or answered
        self._idle = threading.Condition()
        super().__init__(address, _Exchange)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own asks a name server who we are
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._idle:
            accepted = len(self._open) < self.limits.connections
            if accepted:
                self._open.add(request)
        if accepted:
            super().process_request(request, client_address)
            return
        with suppress(OSError):
            request.settimeout(1)
            request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
        self.close_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._idle:
                self._open.discard(request)
                self._idle.notify_all()

    def shutdown_request(self, request: Any) -> None:
        """Closing with unread data would take back the answer that has just been sent."""
        deadline, left = time.monotonic() + _LINGER_S, _LINGER_BYTES
        with suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            request.settimeout(_LINGER_S)
            while left > 0 and time.monotonic() < deadline and (piece := request.recv(1 << 16)):
                left -= len(piece)
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is no news; there is nobody to tell."""

    def busy(self, change: int) -> None:
        with self._idle:
            self._busy += change
            self._idle.notify_all()

    def drain(self, timeout_s: float = 60.0) -> None:
        """Accept nothing more, answer what is taken, and stop `serve_forever`."""
        self.draining = True
        self.shutdown()
        self.service.close()
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, timeout=timeout_s)
            for connection in self._open:  # silent ones, whose threads must not outlive us
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._idle.wait_for(lambda: not self._open, timeout=timeout_s)
        self.server_close()


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = f"dreamprm/{__version__}", ""
    wbufsize = -1  # an answer goes out in one piece
    server: ScoringServer

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.limits.silence_s)

    def log_message(self, format: str, *args: Any) -> None:
        """The metrics tell."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server finds wrong with a request line or header."""
        self.close_connection = True
        self.request_version = self.protocol_version  # what cannot be read is answered with headers all the same
        self._reply(int(code), {"error": message or "malformed request"})

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        self.server.busy(+1)
        try:
            self._reply(200, self._result(method))
        except _Refused as refused:
            self._reply(refused.status, {"error": refused.message}, **refused.headers)
        finally:
            self.server.busy(-1)

    def _result(self, method: str) -> dict[str, Any] | str:
        path = self.path.partition("?")[0]
        if method == "GET" and self.headers.get("content-length", "0") != "0":
            self.close_connection = True  # its body is not read
        if path not in _PATHS:
            raise self._closing(404, f"there are {', '.join(_PATHS)}")
        if method != _PATHS[path]:
            raise self._closing(405, f"{path} takes {_PATHS[path]}", Allow=_PATHS[path])
        if path == "/health" and not self._authorised():
            return {"status": self._status()}
        if not self._authorised():
            raise self._closing(401, "a bearer token is needed", **{"WWW-Authenticate": "Bearer"})
        if path == "/score":
            return self._score()
        service = self.server.service
        if path == "/metrics":
            return self.server.metrics.text(
                cached_tokens=service.engine.cached_tokens(), reused_tokens=service.engine.reused_tokens(),
                waiting=service.waiting,
            )  # fmt: skip
        return {
            "status": self._status(), "version": __version__, "schema_version": SCHEMA_VERSION,
            "prm": service.engine.name, "device": service.engine.device, "forms": list(service.engine.forms),
            "template_version": PRM_TEMPLATE_VERSION, "splitter_version": SPLITTER_VERSION,
            "aggregation": self.server.aggregation, "logprob_weight": service.engine.logprob_weight,
        }  # fmt: skip

    def _status(self) -> str:
        return "stopping" if self.server.draining else "ok"

    def _authorised(self) -> bool:
        if self.server.token is None:
            return True
        given = self.headers.get("authorization", "").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(given, f"Bearer {self.server.token}".encode())

    def _score(self) -> dict[str, Any]:
        begin = time.monotonic()
        value = self._body()
        try:
            answer = self._in_words(value) if isinstance(value, dict) and "code" in value else self._in_steps(value)
        except RequestError as error:
            raise _Refused(400, str(error)) from None
        except TooLarge as error:
            raise _Refused(413, str(error)) from None
        except Busy as busy:
            raise _Refused(429, str(busy), **{"Retry-After": str(busy.retry_after_s)}) from None
        except Stopping as error:
            raise _Refused(503, str(error), **{"Retry-After": "5"}) from None
        except FutureTimeout:
            raise _Refused(503, "no answer in time", **{"Retry-After": "5"}) from None
        except DreamPRMError as error:
            raise _Refused(500, error.message) from None
        except Exception as error:
            raise _Refused(500, f"scoring failed: {type(error).__name__}") from None
        self.server.metrics.took(time.monotonic() - begin)
        return answer

    def _in_steps(self, value: Any) -> dict[str, Any]:
        return self._wait(parse_request(value)).to_json()

    def _in_words(self, value: dict[str, Any]) -> dict[str, Any]:
        """A whole program as text: split here, and aggregated."""
        problem, code = parse_problem(value), value["code"]
        if not isinstance(code, str) or not code.strip():
            raise RequestError("`code` must be a program's text")
        steps = split(code, problem.language)
        answer = self._wait(ScoreRequest(problem, (tuple(steps),), (0,)))
        [rewards] = answer.rewards
        return {
            "schema_version": SCHEMA_VERSION,
            "prm": self.server.service.engine.name,
            "aggregation": self.server.aggregation,
            "reward": number(aggregate(rewards, self.server.aggregation)),
            "truncated": answer.truncated,
            "steps": [
                {
                    "name": s.name, "kind": s.kind, "first_line": s.first_line, "last_line": s.last_line,
                    "reward": number(r),
                }
                for s, r in zip(steps, rewards, strict=True)
            ],
            "usage": {"input_tokens": answer.encoded_tokens, "output_tokens": 0},
        }  # fmt: skip

    def _wait(self, request: ScoreRequest) -> ScoreAnswer:
        answer = self.server.service.submit(request)
        try:
            return answer.result(self.server.limits.answer_s)
        except FutureTimeout:
            answer.cancel()
            raise

    def _body(self) -> Any:
        """The JSON that was sent. Raises _Refused; the connection ends where its rest cannot be told apart."""
        length = self.headers.get("content-length")
        if length is None or "transfer-encoding" in self.headers:
            raise self._closing(411, "a Content-Length is needed, and no other encoding")
        if not (length.isascii() and length.isdigit() and len(length) < 19):
            raise self._closing(400, "Content-Length must be a number")
        size, limit = int(length), self.server.limits.body_bytes
        if size > limit:
            raise self._closing(413, f"{size} bytes: at most {limit} a request")
        try:
            content = self.rfile.read(size)
        except OSError:
            raise self._closing(408, "the request did not arrive in time") from None
        if len(content) < size:
            raise self._closing(400, "the request was cut off")
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise _Refused(400, "the body is not JSON") from None

    def _closing(self, status: int, message: str, **headers: str) -> _Refused:
        self.close_connection = True
        return _Refused(status, message, **headers)

    def _reply(self, status: int, content: dict[str, Any] | str, **headers: str) -> None:
        path = getattr(self, "path", "").partition("?")[0]
        self.server.metrics.answered(path if path in _PATHS else "other", status)
        text = isinstance(content, str)
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        with suppress(OSError):  # the client may be gone
            self.send_response(status)
            self.send_header("Content-Type", CONTENT_TYPE if text else "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            if self.close_connection or self.server.draining:
                self.close_connection = True
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
