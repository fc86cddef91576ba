"""A program with a file to write: runs it in a child, then reads the file. Runs in the container, as the candidate.

Only a small regular file is read, not through links, and nothing that could block. What is sent is a claim, as every
result: a program that writes it itself has to know the right content. Standard library only.
"""

from __future__ import annotations

import atexit
import os
import stat
import sys
from typing import Any


def main(source: bytes, stdin: bytes, name: str, max_bytes: int, max_printed: int) -> dict[str, Any]:
    """`{"status": wait status, "printed": bytes, "error": exception's name, "problem": str, "content": bytes}`."""
    given, printed = os.memfd_create("stdin"), os.memfd_create("stdout")
    told, telling = os.pipe()
    while stdin:
        stdin = stdin[os.write(given, stdin) :]
    os.lseek(given, 0, os.SEEK_SET)
    pid = os.fork()
    if pid == 0:
        os.dup2(given, 0)
        os.dup2(printed, 1)
        for fd in (given, printed, told):
            os.close(fd)
        _program(source, telling)
    os.close(telling)
    _, status = os.waitpid(pid, 0)
    os.set_blocking(told, False)
    try:
        error = os.read(told, 1000).decode("utf-8", "replace")
    except BlockingIOError:
        error = ""
    problem, content = _read(name, max_bytes)
    size = os.fstat(printed).st_size
    return {
        "status": status,
        "printed": os.pread(printed, max_printed + 1, 0) if size else b"",
        "error": error,
        "problem": problem,
        "content": content,
    }


def _program(source: bytes, telling: int) -> None:
    """What `python solution.py` does; the name of an exception is told apart."""
    from dreamprm_sandbox import runner

    space = runner.MAIN.__dict__
    sys.modules["__main__"] = runner.MAIN
    sys.modules.pop("solution", None)
    sys.argv = ["solution.py"]
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    status = 0
    try:
        exec(compile(source, "solution.py", "exec", dont_inherit=True), space)
    except SystemExit as end:
        status = runner._exit_status(end.code)
    except BaseException as error:
        status = 1
        os.write(telling, type.__dict__["__name__"].__get__(type(error)).encode("utf-8", "replace")[:100])
    try:
        runner._threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        status = status or 120
    os._exit(status)


def _read(name: str, max_bytes: int) -> tuple[str, bytes]:
    """(what is wrong, content) of a file below the working folder."""
    folder = os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY)
    *parents, last = name.split("/")
    try:
        for parent in parents:
            folder = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        found = os.stat(last, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            return "not a regular file", b""
        fd = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=folder)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            return "not a regular file", b""
        if found.st_size > max_bytes:
            return "too large", b""
        content = b""
        while len(content) <= max_bytes and (part := os.read(fd, max_bytes + 1 - len(content))):
            content += part
        return ("too large", b"") if len(content) > max_bytes else ("", content)
    except FileNotFoundError:
        return "not written", b""
    except OSError as error:
        return f"cannot be read ({error.strerror})", b""
