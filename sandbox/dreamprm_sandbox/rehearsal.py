"""A rehearsal of what candidates do, in PID 1 before its first fork.

What an interpreter does on its first run of something (fill caches, specialize code, make tables) every candidate would
do again, on pages that are copied for it. Here it is done once, with a program of ours. Standard library only; runs in
the container.
"""

from __future__ import annotations

import os
import struct
import sys

from dreamprm_sandbox import codec, runner

_TIMES = 20  # code is specialized after some runs
_PROGRAM = """
import math
from collections import defaultdict


class Total:
    def __init__(self, start=0):
        self.value = start

    def add(self, number):
        self.value += number
        return self


def solve(numbers):
    seen, total = defaultdict(int), Total()
    for number in numbers:
        seen[number % 3] += 1
        total.add(number)
    return total.value, sorted(seen.items(), key=lambda pair: -pair[1])


count = int(input())
total, seen = solve([int(word) for word in input().split()])
print(total, math.gcd(total, count), f"{seen}")
"""
_INPUT = b"3\n1 2 3\n"
_VALUE = ([1, 2.5, "text", (True, None), {"key": {3}}],), {"name": b""}


def rehearse() -> None:
    """Leaves nothing behind but what is warm."""
    streams = sys.stdin, sys.stdout
    space = dict(runner.MAIN.__dict__)
    for _ in range(_TIMES):
        _program()
        _call()
        runner.MAIN.__dict__.clear()
        runner.MAIN.__dict__.update(space)
    sys.stdin, sys.stdout = streams


def _program() -> None:
    pipe, job, results = _pipe()
    printed, standard_output = os.pipe()
    os.write(job, runner.pack_job("program", 0, "", _PROGRAM, None) + _INPUT)
    with open(pipe.job_fd, encoding="utf-8") as sys.stdin, open(standard_output, "w", encoding="utf-8") as sys.stdout:
        if runner.answer(pipe, pipe.exactly(runner.HEADER.size)) != 0:
            raise RuntimeError("the rehearsal failed")
    for fd in (job, results, pipe.result_fd, printed):
        os.close(fd)


def _call() -> None:
    pipe, job, results = _pipe()
    pipe.pid = os.getpid()
    value = codec.encode(_VALUE)
    os.write(job, struct.pack("!I", len(value)) + value)
    pipe.send_value(pipe.receive())
    for fd in (job, results, pipe.job_fd, pipe.result_fd):
        os.close(fd)


def _pipe() -> tuple[runner.Pipe, int, int]:
    """A candidate's side of the line, and the other ends of it."""
    job_read, job = os.pipe()
    results, results_write = os.pipe()
    return runner.Pipe(job_read, results_write), job, results
