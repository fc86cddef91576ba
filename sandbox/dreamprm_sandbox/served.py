"""The program's side of the line: loads it on demand and answers the tests. Runs in the candidate's process, which can
rewrite every line of it and gains nothing by that. Standard library only."""

from __future__ import annotations

import builtins
import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from dreamprm_sandbox import load, runner
from dreamprm_sandbox.remote import Peer


def serve(sources: Mapping[str, str], data: Mapping[str, bytes]) -> None:
    """Answer until the process is ended."""
    pipe: Any = runner._pipe
    try:
        load.install(sources, data)
    except BaseException as error:
        pipe.send_error(b"C", error)
        os._exit(0)
    pipe.send_value("ready")
    Candidate(pipe.send_value, pipe.receive_one).serve()


class Candidate(Peer):
    """The side of the program."""

    def __init__(self, send: Callable[[Any], None], receive: Callable[[], Any]) -> None:
        super().__init__(send, receive)
        self._out, self._err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "replace", write_through=True) for _ in "12")
        sys.stdout, sys.stderr, sys.stdin = self._out, self._err, _Lines(self)
        builtins.input = lambda prompt="": self.request("input", -1, (str(prompt),), {})

    def serve(self) -> None:
        while True:
            self.send(self.answer(self._receive()))

    def request(self, op: str, target: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._answering:
            raise RuntimeError("the tests can be called while they wait for the program only")
        return super().request(op, target, args, kwargs)

    def _do(self, op: str, thing: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if op == "import":
            __import__(args[0])
            return sys.modules[args[0]]
        return super()._do(op, thing, args, kwargs)

    def printed(self) -> Any:
        return _taken(self._out), _taken(self._err)


def _taken(stream: io.TextIOWrapper) -> str:
    """What was written since the last time; nothing once the program has closed it."""
    buffer = stream.buffer if not stream.closed else io.BytesIO()
    assert isinstance(buffer, io.BytesIO)
    text = buffer.getvalue().decode("utf-8", "replace")
    buffer.seek(0)
    buffer.truncate()
    return text


class _Lines(io.TextIOBase):
    """Standard input, as the tests have it at the moment."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def readable(self) -> bool:
        return True

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        return str(self._peer.request("line", -1, (), {}))

    def read(self, size: int | None = -1) -> str:
        return "".join(iter(self.readline, ""))
