"""JSON over HTTP to a scoring server, ours or vLLM's: one connection kept, retries, errors in a line."""

from __future__ import annotations

import http.client
import json
import math
import os
import random
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from dreamprm_cli.errors import ScorerError
from dreamprm_cli.policy.faults import parse_retry_after

TOKEN_VARIABLE = "DREAMPRM_PRM_TOKEN"
_TRIES, _BACKOFF_S, _MAX_BACKOFF_S = 6, 0.25, 8.0
_MAX_RETRY_AFTER_S = 120.0
_TIMEOUT_S = 600.0  # of an answer: a long queue before a slow machine
_RETRIED = (408, 429, 500, 502, 503, 504)


def own_token() -> str | None:
    """The user's token for scoring servers."""
    return os.environ.get(TOKEN_VARIABLE) or None


class Client:
    """A server at `http[s]://HOST:PORT[/PATH]`. Requests can be repeated, as scoring changes nothing.

    token: sent as a bearer token. Raises ScorerError for what is no URL.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout_s: float = _TIMEOUT_S) -> None:
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError:
            self._host, self._port = "", None
        if not self._host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
            raise ScorerError(f"{url!r} is no address of a scoring server", "it looks like http://HOST:PORT")
        self._class = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._path = parts.path.rstrip("/")
        self._timeout_s = timeout_s
        where = f"[{self._host}]" if ":" in self._host else self._host
        # Without user and password, should somebody have put them there.
        self.shown = f"{parts.scheme}://{where}{f':{self._port}' if self._port else ''}{self._path}"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()

    def get(self, path: str) -> dict[str, Any]:
        return self._call("GET", path, None)

    def post(self, path: str, value: Any) -> dict[str, Any]:
        return self._call("POST", path, json.dumps(value).encode())

    def error(self, message: str, hint: str = "") -> ScorerError:
        return ScorerError(f"{self.shown}: {message}", hint)

    def _call(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        """The JSON object that answers. Raises ScorerError when there is none after some tries."""
        with self._lock:
            for attempt in range(_TRIES):
                last = attempt == _TRIES - 1
                try:
                    status, headers, content = self._exchange(method, path, body)
                except TimeoutError:
                    raise self.error(f"no answer for {self._timeout_s:g} s", "is the server too busy?") from None
                except (OSError, http.client.HTTPException) as error:
                    self._close()
                    if last or (attempt and isinstance(error, ConnectionRefusedError)):
                        raise self._unreachable(error) from None
                    time.sleep(_pause_s(attempt, None))
                    continue
                wait_s = parse_retry_after(headers)
                patient = wait_s is None or wait_s <= _MAX_RETRY_AFTER_S
                if status in _RETRIED and not last and patient:
                    time.sleep(_pause_s(attempt, wait_s))
                    continue
                return self._read(status, content)
        raise AssertionError("unreachable")

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, Any, bytes]:
        if self._connection is None:
            self._connection = self._class(self._host, self._port, timeout=self._timeout_s)
        headers = dict(self._headers) if body is None else {**self._headers, "Content-Type": "application/json"}
        self._connection.request(method, self._path + path, body, headers)
        response = self._connection.getresponse()
        return response.status, response.headers, response.read()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _unreachable(self, error: Exception) -> ScorerError:
        if isinstance(error, ConnectionRefusedError):
            return self.error("nothing listens there", "is the server running, and is the port right?")
        return self.error(f"no connection: {error or type(error).__name__}", "is the server running?")

    def _read(self, status: int, content: bytes) -> dict[str, Any]:
        try:
            value = json.loads(content)
        except ValueError:
            value = None
        if status in (401, 403):
            hint = f"set {TOKEN_VARIABLE} to the server's token"
            raise self.error("it wants another token" if self._headers else "it wants a token", hint)
        if status != 200:
            raise self.error(f"{status} {_said(value)}".strip(), _hint(status))
        if not isinstance(value, dict):
            raise self.error("the answer is no JSON object", "is it a scoring server?")
        return value


def _said(value: Any) -> str:
    """A server's own words: ours, or those of OpenAI's protocol."""
    for key in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(key):
            value = value[key]
    text = value if isinstance(value, str) else ""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]


def _hint(status: int) -> str:
    if status == 413:
        return "score fewer programs at once, or serve with a larger cache"
    if status in (429, 503):
        return "the server is too busy: try later, or serve with a longer queue"
    return "is it a scoring server?" if status < 500 else "see the server's own log"


def _pause_s(attempt: int, retry_after_s: float | None) -> float:
    """Random, so that clients that were turned away together do not come back together."""
    backoff_s = min(_MAX_BACKOFF_S, _BACKOFF_S * math.pow(2, attempt)) * random.uniform(0.75, 1.25)
    return backoff_s if retry_after_s is None else retry_after_s + random.uniform(0, _BACKOFF_S)
