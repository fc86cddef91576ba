"""The candidate's side of one run: what a freshly forked process does with the job it is sent.

Covered: `program` (a script with real standard streams), `calls` (a function or method called with one input at a
time), `script` (tests that must share the process: weak). Standard library only; runs in the container.
Not covered: any judgement. A candidate can rewrite all of this module while it runs and gains nothing by it: what is
sent is only ever a claimed result, and the expected one is not here.

Frames: from the host the job (`pack_job`), then inputs as `u32 length, codec value`; to the host `tag, u32 length,
payload` with tags L (loaded), V (value), E (exception), C (does not compile), S (result too large), P (script ran to
its end).

What costs time here is pages that the child writes and that have to be copied for it: hence the plain job header, the
streams that were opened before the fork, and no hooks after it.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import importlib
import os
import resource
import struct
import sys
import types
from typing import Any, NoReturn

from dreamprm_sandbox.codec import Opaque, TooLarge, decode, encode

_read, _write, _exit, _getpid, _pack, _unpack = os.read, os.write, os._exit, os.getpid, struct.pack, struct.unpack
_str, _len, _type, _isinstance = str, len, type, isinstance
_args_of = BaseException.__dict__["args"].__get__
MAX_INPUT = 1 << 30  # the host is trusted: its inputs are not capped
RESULT_FD = 3
# Imported before the first fork: programs of the benchmarks start with these. All pay for what few of them import, in
# page tables to copy.
_PRELOADED = (
    "bisect collections copy datetime enum functools heapq itertools json math operator random re statistics string "
    "threading typing"
)
_PROGRAM, _CALLS, _SCRIPT = range(3)
MODES = {"program": _PROGRAM, "calls": _CALLS, "script": _SCRIPT}
# mode, megabytes of memory (0: what PID 1 has), lengths of prelude, code and entry point
HEADER = struct.Struct("!IIIII")


def _preload() -> None:
    """Import the modules without what they do after every fork: `random` would draw a seed, `threading` look for
    threads that were never there."""
    register = os.register_at_fork
    os.register_at_fork = lambda **hook: None
    try:
        for name in _PRELOADED.split():
            importlib.import_module(name)
    finally:
        os.register_at_fork = register
    sys.modules["random"].seed(0)


_preload()
_threading: Any = sys.modules["threading"]


# What the interpreter itself takes between the limit and the candidate's first line. Without it one object of just the
# budget would depend on chance, and children that fail to get it would die unseen where the group should be caught.
_OWN_BYTES = 16 << 20


def limit(memory_bytes: int) -> None:
    """Limits for this process and all it forks. Shared libraries and arenas are mapped already: memory comes on top.

    Address space is each process's; what the candidate and its children hold together is limited by the control group.
    """
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    most = mapped + memory_bytes + _OWN_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    deepest = resource.getrlimit(resource.RLIMIT_STACK)[1]
    resource.setrlimit(resource.RLIMIT_STACK, (deepest, deepest))


def pack_job(mode: str, memory_mb: int, prelude: str, code: str, entry_point: str | None) -> bytes:
    """A job's bytes. Lone surrogates stay what they are: the candidate's compiler refuses them."""
    texts = [text.encode("utf-8", "surrogatepass") for text in (prelude, code, entry_point or "")]
    return HEADER.pack(MODES[mode], memory_mb, *map(len, texts)) + b"".join(texts)


class Pipe:
    """Frames in, tagged frames out. Only the process that opened it may speak: a forked child of it just exits."""

    def __init__(self, job_fd: int = 0, result_fd: int = RESULT_FD) -> None:
        self.job_fd, self.result_fd, self.pid = job_fd, result_fd, 0

    def receive(self) -> Any:
        """The next input's value; ends the process at end of file."""
        (size,) = _unpack("!I", self.exactly(4))
        return decode(self.exactly(size), MAX_INPUT)

    def receive_one(self) -> Any:
        """An input that is a single value, where others are (arguments, keywords)."""
        (value,), _ = self.receive()
        return value

    def exactly(self, size: int) -> bytes:
        data = _read(self.job_fd, size)
        while _len(data) < size:
            part = _read(self.job_fd, size - _len(data))
            if not part:
                _exit(0)
            data += part
        return data

    def send(self, tag: bytes, payload: bytes = b"") -> None:
        if _getpid() != self.pid:
            _exit(0)
        data = tag + _pack("!I", _len(payload)) + payload
        while data:
            data = data[_write(self.result_fd, data) :]

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


_pipe = Pipe()
MAIN, _solution = types.ModuleType("__main__"), types.ModuleType("solution")
MAIN.__dict__.update(__builtins__=builtins, __file__="solution.py")


def set_stage() -> None:
    """What a candidate finds: itself as the main module."""
    sys.modules["__main__"] = MAIN
    sys.argv = ["solution.py"]


def await_job() -> bytes:
    """Block until a job comes: its header. All that a process does before it gives up root."""
    return _pipe.exactly(HEADER.size)


def run(header: bytes) -> NoReturn:
    """Take the rest of the job from descriptor 0, answer on RESULT_FD, and end the process."""
    _exit(answer(_pipe, header))


def answer(pipe: Pipe, header: bytes) -> int:
    """One job; the exit status."""
    pipe.pid = _getpid()
    mode, memory_mb, prelude_size, code_size, entry_size = HEADER.unpack(header)
    text = pipe.exactly(prelude_size + code_size + entry_size)
    if memory_mb:
        limit(memory_mb << 20)
    gc.enable()
    try:
        prelude = compile(text[:prelude_size], "prelude.py", "exec", dont_inherit=True) if prelude_size else None
        code = compile(text[prelude_size : prelude_size + code_size], "solution.py", "exec", dont_inherit=True)
    except BaseException as error:
        pipe.send_error(b"C", error)
        return 0
    if mode == _PROGRAM:
        return _program(pipe, prelude, code)
    entry_point = text[prelude_size + code_size :].decode("utf-8", "surrogatepass")
    sys.modules["solution"] = _solution
    pipe.job_fd = os.dup(0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    space = _solution.__dict__
    try:
        if prelude is not None:
            exec(prelude, space)
        exec(code, space)
        target = _resolve(space, entry_point)
    except BaseException as error:
        pipe.send_error(b"E", error)
        return 0
    pipe.send(b"L")
    if mode == _CALLS:
        _calls(pipe, target)
    return _script(pipe, space, target)


def _resolve(space: dict[str, Any], entry_point: str) -> Any:
    """The function that the tests call: `name`, or `Class.method` of one instance (a plain function will
    do). Looked up in the candidate alone."""
    if not entry_point:
        return None
    first, _, method = entry_point.partition(".")
    if method and first not in space and method in space:
        return space[method]
    if first not in space:
        raise NameError(f"name '{first}' is not defined")
    return getattr(space[first](), method) if method else space[first]


def _calls(pipe: Pipe, target: Any) -> NoReturn:
    while True:
        args, kwargs = pipe.receive()
        try:
            value = target(*args, **kwargs)
            pipe.send_value(value)
        except BaseException as error:
            pipe.send_error(b"E", error)
        finally:
            value = None


def _script(pipe: Pipe, space: dict[str, Any], target: Any) -> int:
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
    return 0


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


def _program(pipe: Pipe, prelude: types.CodeType | None, code: types.CodeType) -> int:
    """What `python solution.py` does: run as __main__, then threads, exit handlers, flush, exit code."""
    space = MAIN.__dict__
    status = 0
    try:
        if prelude is not None:
            exec(prelude, space)
        exec(code, space)
    except SystemExit as error:
        status = _exit_status(error.code)
    except BaseException as error:
        status = 1
        pipe.send_error(b"E", error)
        try:
            sys.__excepthook__(type(error), error, error.__traceback__)
        except BaseException:
            status = 1
    try:
        if len(_threading._active) > 1:
            _threading._shutdown()
        atexit._run_exitfuncs()
        out = getattr(sys, "stdout", None)
        if out is not None and not out.closed:
            out.flush()
    except BaseException:
        status = status or 120
    return status


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
