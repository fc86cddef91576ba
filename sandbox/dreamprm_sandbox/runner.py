"""The candidate's side of one run: what a freshly forked process does with the job it is sent.

Covered: `program` (a script with real standard streams), `calls` (a function or method called with one input at a
time), `script` (tests that must share the process: weak). Standard library only; runs in the container.
Not covered: any judgement. A candidate can rewrite all of this module while it runs and gains nothing by it: what is
sent is only ever a claimed result, and the expected one is not here.

Frames on both pipes: from the host `u32 length, codec value`; to the host `tag, u32 length, payload` with tags
L (loaded), V (value), E (exception), C (does not compile), S (result too large), P (script ran to its end).
"""

from __future__ import annotations

import atexit
import builtins
import gc
import importlib
import io
import os
import random
import resource
import struct
import sys
import threading
import traceback
import types
from typing import Any

from dreamprm_sandbox.codec import Opaque, TooLarge, decode, encode

_read, _write, _exit, _getpid, _pack, _unpack = os.read, os.write, os._exit, os.getpid, struct.pack, struct.unpack
_str, _len, _type, _isinstance = str, len, type, isinstance
_args_of = BaseException.__dict__["args"].__get__
MAX_INPUT = 1 << 30  # the host is trusted: its inputs are not capped
RESULT_FD = 3
# Imported before the first fork: programs of the benchmarks start with these.
_PRELOADED = (
    "array bisect calendar cmath collections collections.abc copy ctypes dataclasses datetime decimal enum fractions "
    "functools hashlib heapq inspect itertools json math numbers operator pprint queue re statistics string textwrap "
    "time typing unicodedata"
)
for _module in _PRELOADED.split():
    importlib.import_module(_module)
with open("/proc/self/statm") as _statm:
    # Shared libraries and arenas are mapped before a program starts: its own budget comes on top.
    _MAPPED = int(_statm.read().split()[0]) * resource.getpagesize()


class _Pipe:
    """Frames in, tagged frames out. Only the process that opened it may speak: a forked child of it just exits."""

    def __init__(self) -> None:
        self.job_fd = 0
        self.pid = _getpid()

    def receive(self) -> Any:
        """The next frame's value; ends the process at end of file."""
        (size,) = _unpack("!I", self._exactly(4))
        return decode(self._exactly(size), MAX_INPUT)

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while _len(data) < size:
            part = _read(self.job_fd, min(size - _len(data), 1 << 16))
            if not part:
                _exit(0)
            data += part
        return bytes(data)

    def send(self, tag: bytes, payload: bytes = b"") -> None:
        if _getpid() != self.pid:
            _exit(0)
        data = tag + _pack("!I", _len(payload)) + payload
        while data:
            data = data[_write(RESULT_FD, data) :]

    def send_value(self, value: Any) -> None:
        try:
            payload = encode(value)
        except TooLarge:
            self.send(b"S")
        else:
            self.send(b"V", payload)

    def send_error(self, tag: bytes, error: BaseException) -> None:
        """Names the exception without running a line of its class's code."""
        text = ""
        args = _args_of(error)
        if args and _type(args[0]) is _str:
            text = args[0][:500]
        name = _type.__dict__["__name__"].__get__(_type(error))
        self.send(tag, encode((name[:100], text)))


def run() -> None:
    """Take one job from descriptor 0, answer on RESULT_FD, and never return."""
    pipe = _Pipe()
    job = pipe.receive()
    _limit(resource.RLIMIT_AS, _MAPPED + job["memory_bytes"])
    _limit(resource.RLIMIT_CPU, job["cpu_s"])
    _limit(resource.RLIMIT_STACK, resource.getrlimit(resource.RLIMIT_STACK)[1])
    gc.enable()
    random.seed(0)
    try:
        prelude = compile(job["prelude"], "prelude.py", "exec", dont_inherit=True)
        code = compile(job["code"], "solution.py", "exec", dont_inherit=True)
    except BaseException as error:
        pipe.send_error(b"C", error)
        _exit(0)
    if job["mode"] == "program":
        _program(pipe, prelude, code)
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    pipe.job_fd = os.dup(0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    _open_streams()
    space = module.__dict__
    try:
        exec(prelude, space)
        exec(code, space)
        target = _resolve(space, job["entry_point"])
    except BaseException as error:
        pipe.send_error(b"E", error)
        _exit(0)
    pipe.send(b"L")
    if job["mode"] == "calls":
        _calls(pipe, target)
    _script(pipe, space, target)


def _limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, value))


def _resolve(space: dict[str, Any], entry_point: str | None) -> Any:
    """The function that the tests call: `name`, or `Class.method` of one instance. Looked up in the candidate alone."""
    if entry_point is None:
        return None
    first, _, method = entry_point.partition(".")
    if first not in space:
        raise NameError(f"name '{first}' is not defined")
    return getattr(space[first](), method) if method else space[first]


def _calls(pipe: _Pipe, target: Any) -> None:
    while True:
        args, kwargs = pipe.receive()
        try:
            value = target(*args, **kwargs)
            pipe.send_value(value)
        except BaseException as error:
            pipe.send_error(b"E", error)
        finally:
            value = None


def _script(pipe: _Pipe, space: dict[str, Any], target: Any) -> None:
    """Tests that share the process. They arrive after the candidate is loaded; its results are made plain."""
    job = pipe.receive()
    try:
        exec(compile(job["tests"], "tests.py", "exec", dont_inherit=True), space)
        check = space.get("check")
        if job["call_check"] and callable(check):
            check(_plain(target) if callable(target) else target)
    except BaseException as error:
        pipe.send_error(b"E", error)
    else:
        pipe.send(b"P", job["nonce"])
    _exit(0)


def _plain(function: Any) -> Any:
    """`function`, its results collapsed to builtin values where they are such."""

    def call(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        plain = decode(encode(value))
        return value if _holds_opaque(plain) else plain

    return call


def _holds_opaque(value: Any) -> bool:
    if _isinstance(value, Opaque):
        return True
    if _isinstance(value, dict):
        return any(_holds_opaque(key) or _holds_opaque(entry) for key, entry in value.items())
    return _isinstance(value, (list, tuple, set, frozenset)) and any(map(_holds_opaque, value))


def _open_streams() -> None:
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    raw = io.FileIO(2, "w", closefd=False)
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(  # type: ignore[misc]
        io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=True
    )


def _program(pipe: _Pipe, prelude: types.CodeType, code: types.CodeType) -> None:
    """What `python solution.py` does: run as __main__, then threads, exit handlers, flush, exit code."""
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    module.__dict__["__file__"] = "solution.py"
    sys.modules["__main__"] = module
    sys.argv = ["solution.py"]
    _open_streams()
    status = 0
    try:
        exec(prelude, module.__dict__)
        exec(code, module.__dict__)
    except SystemExit as error:
        status = _exit_status(error.code)
    except BaseException as error:
        status = 1
        pipe.send_error(b"E", error)
        try:
            traceback.print_exc()
        except BaseException:
            status = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        status = status or 120
    _exit(status)


def _exit_status(code: Any) -> int:
    if code is None:
        return 0
    if _isinstance(code, int):
        return int(code) & 0xFF
    try:
        sys.stderr.write(f"{code}\n")
    except BaseException:
        return 1
    return 1
