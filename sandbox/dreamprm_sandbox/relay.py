"""Bytes between the host and one candidate, and the limits on it while they flow. Part of PID 1.

From the host: header `kind u8, 3 pad, length u32` and payload; kinds START (a `LIMITS` struct), DATA (to the
candidate's job pipe; begins a new test), MORE (the same, and another follows), LAST (the same, and end of file after
it), STOP. The job itself is the first of DATA or LAST, and sent together with START. To the host, the same header with
kinds HELLO (JSON), RESULT, OUT, ERR (bytes as they come) and EXIT (an `ENDED` struct), which ends a run.

Lockstep: of several inputs on their way, the next is not even read before the candidate's result for the last is
complete. Results are counted by their length, never understood. Everything passes through fixed buffers that are
cleared before the next fork, so that no candidate inherits another's inputs or results in its memory.
Standard library only; runs in the container.
"""

from __future__ import annotations

import os
import select
import struct
import time

from dreamprm_sandbox.cgroup import Meter

START, DATA, MORE, LAST, STOP = range(1, 6)
HELLO, RESULT, OUT, ERR, EXIT = range(11, 16)
EXITED, STOPPED, CPU, WALL, OUTPUT = range(5)  # why a run ended
HEADER = struct.Struct("!BxxxI")
# cpu_us and wall_us of one test, cpu_us of the whole run, caps on standard output and error, forward output?
LIMITS = struct.Struct("!QQQIIB")
# reason, wait status, out-of-memory kills, cpu_us and wall_us of the run, cpu_us and wall_us of the last test,
# us the candidate's threads waited for a processor (all ones: the kernel does not tell)
ENDED = struct.Struct("!BxxxiIQQQQQ")

_CHUNK = 1 << 15
_ERR_SHOWN = 4096
_HELD_BACK_US = 10_000  # results are sent together for so long while more inputs are at hand
_RESULT_HEADER = 5  # tag, u32 length
_HEAD_START_MS = 5  # a program that has all its input is left alone for so long: most have ended by then


class Candidate:
    """A forked process and this side of its pipes (-1 once closed)."""

    __slots__ = ("job", "pid", "result", "stderr", "stdout")

    def __init__(self, pid: int, job: int, result: int, stdout: int, stderr: int) -> None:
        self.pid, self.job, self.result, self.stdout, self.stderr = pid, job, result, stdout, stderr

    def close(self) -> None:
        for fd in (self.job, self.result, self.stdout, self.stderr):
            if fd >= 0:
                os.close(fd)


class HostStream:
    """The one attached stream: descriptors 0 and 1. The host closing it is the end of this process."""

    def __init__(self) -> None:
        self._in, self._out = bytearray(_CHUNK), bytearray(8 * _CHUNK)
        self.incoming, self._outgoing = memoryview(self._in), memoryview(self._out)
        self.waiting = 0  # bytes of _out to be sent
        self._dirty_in = self._dirty_out = 0  # high-water marks since the last clearing

    def header(self) -> tuple[int, int]:
        """The next frame's kind and length."""
        self.take(8, whole=True)
        kind, size = HEADER.unpack_from(self._in)
        return kind, size

    def take(self, size: int, whole: bool = False) -> int:
        """Up to a chunk of the payload into `incoming`; with `whole` exactly `size` (at most a chunk)."""
        got = 0
        size = min(size, _CHUNK)
        while True:
            part = os.readv(0, [self.incoming[got:size]])
            if part == 0:
                os._exit(0)
            got += part
            if got == size or not whole:
                self._dirty_in = max(self._dirty_in, got)
                return got

    def skip(self, size: int) -> None:
        while size:
            size -= self.take(size)

    def send(self, kind: int, payload: bytes) -> None:
        self._reserve(len(payload))
        start = self.waiting + 8
        HEADER.pack_into(self._out, self.waiting, kind, len(payload))
        self._out[start : start + len(payload)] = payload
        self.waiting = start + len(payload)

    def relay(self, fd: int, kind: int) -> memoryview:
        """Read what is there into the outgoing buffer as one frame (kind 0: drop it). Empty at end of file."""
        self._reserve(_CHUNK)
        start = self.waiting + 8
        try:
            got = os.readv(fd, [self._outgoing[start : start + _CHUNK]])
        except BlockingIOError:
            got = 0
        self._dirty_out = max(self._dirty_out, start + got)
        if got and kind:
            HEADER.pack_into(self._out, self.waiting, kind, got)
            self.waiting = start + got
        return self._outgoing[start : start + got]

    def flush(self) -> None:
        self._dirty_out = max(self._dirty_out, self.waiting)
        sent = 0
        while sent < self.waiting:
            sent += os.write(1, self._outgoing[sent : self.waiting])
        self.waiting = 0

    def clear(self) -> None:
        """Overwrite what passed through."""
        self._in[: self._dirty_in] = bytes(self._dirty_in)
        self._out[: self._dirty_out] = bytes(self._dirty_out)
        self._dirty_in = self._dirty_out = 0

    def _reserve(self, size: int) -> None:
        if self.waiting + 8 + size > len(self._out):
            self.flush()


class Clock:
    """The limits on time. Processor time is that of the whole group, so children of the candidate count."""

    def __init__(self, meter: Meter, cpu_us: int, wall_us: int, total_cpu_us: int) -> None:
        self._meter = meter
        self._cpu_us, self._wall_us, self._total_us = cpu_us, wall_us, total_cpu_us
        self.started, self.cpu_started = now_us(), meter.cpu_us()
        self._begin(self.started, self.cpu_started)

    def new_test(self) -> None:
        self._begin(now_us(), self._meter.cpu_us())

    def _begin(self, now: int, cpu: int) -> None:
        self._resting = False
        self.test_started, self.test_cpu_started = now, cpu
        self._check_at = self.test_started + self._cpu_us  # the group cannot use more than one processor

    def rest(self) -> None:
        """The candidate has answered: how long the host takes for the next input does not count."""
        self._resting = True

    def left_us(self, now: int) -> int:
        """Until the limits have to be looked at again."""
        return max(0, self._check_at - now)

    def exceeded(self, now: int) -> int:
        """CPU or WALL when a limit is reached, -1 otherwise."""
        if now < self._check_at:
            return -1
        cpu = self._meter.cpu_us()
        left = min(self._cpu_us - (cpu - self.test_cpu_started), self._total_us - (cpu - self.cpu_started))
        wall_left = self._wall_us if self._resting else self._wall_us - (now - self.test_started)
        if left <= 0:
            return CPU
        if wall_left <= 0:
            return WALL
        self._check_at = now + max(2000, min(left, wall_left))
        return -1


class Results:
    """Counts the candidate's results by the lengths they claim."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._left = 0

    def complete(self, data: memoryview) -> bool:
        """Whether a result became complete with this data."""
        done, at = False, 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = min(_RESULT_HEADER - len(self._header), len(data) - at)
                self._header += data[at : at + step]
                if len(self._header) < _RESULT_HEADER:
                    return done
                (self._left,) = struct.unpack_from("!I", self._header, 1)
                self._header.clear()
            at += step
            done = done or self._left == 0
        return done


class Run:
    """One candidate from its job to its end."""

    def __init__(self, host: HostStream, meter: Meter, candidate: Candidate, limits: tuple[int, ...]) -> None:
        cpu_us, wall_us, total_cpu_us, out_cap, err_cap, forward = limits
        self._host = host
        self._candidate = candidate
        self._clock = Clock(meter, cpu_us, wall_us, total_cpu_us)
        self._meter = meter
        self._oom_before = meter.oom_kills()
        self._forward = bool(forward)
        self._room = {candidate.stdout: out_cap, candidate.stderr: err_cap}
        self._err_shown = 0
        self._results = Results()
        self._left = 0  # bytes of the current DATA frame still to be read
        self._fed, self._taken = 0, 0  # the part of `incoming` that the candidate has not taken yet
        self._kind = START  # of the last frame from the host
        self._held_since = 0
        self._reason = -1
        self._poller = select.poll()

    def relay(self) -> None:
        """Until the candidate ends, a limit does it, or the host."""
        candidate, poller = self._candidate, self._poller
        pidfd = os.pidfd_open(candidate.pid)
        poller.register(pidfd, select.POLLIN)
        self._input()
        if candidate.job < 0 and (pidfd, select.POLLIN) in poller.poll(_HEAD_START_MS):
            self._reason = EXITED
        for fd in (candidate.result, candidate.stdout, candidate.stderr):
            poller.register(fd, select.POLLIN)
        while self._reason < 0:
            now = now_us()
            self._reason = self._clock.exceeded(now)
            if self._reason >= 0:
                break
            timeout_us = self._clock.left_us(now) + 1000
            if self._held_since:
                timeout_us = min(timeout_us, max(0, self._held_since + _HELD_BACK_US - now))
            events = poller.poll(timeout_us / 1000)
            for fd, event in events:
                if fd == candidate.result:
                    self._result()
                elif fd == 0:
                    if not event & select.POLLIN:
                        os._exit(0)  # the host is gone
                    self._input()
                elif fd == candidate.stdout or fd == candidate.stderr:
                    self._output(fd)
                elif fd == candidate.job:
                    self._feed()
                elif fd == pidfd and self._reason < 0:
                    self._reason = EXITED
            if self._held_since and now_us() - self._held_since >= _HELD_BACK_US:
                self._send_held()
        os.close(pidfd)
        self._ended = now_us()
        self._cpu_ended = self._meter.cpu_us()
        self._waited = _waited_us(candidate.pid) if self._reason in (CPU, WALL) else 0

    def report(self, status: int) -> None:
        """Send what is left in the pipes, and how it ended. Everything of the candidate is dead by now."""
        host, candidate, clock = self._host, self._candidate, self._clock
        while host.relay(candidate.result, RESULT):
            pass
        while self._output(candidate.stdout):
            pass
        while self._output(candidate.stderr):
            pass
        host.skip(self._left)
        host.send(
            EXIT,
            ENDED.pack(
                self._reason,
                status,
                self._meter.oom_kills() - self._oom_before,
                self._cpu_ended - clock.cpu_started,
                self._ended - clock.started,
                self._cpu_ended - clock.test_cpu_started,
                self._ended - clock.test_started,
                self._waited,
            ),
        )
        host.flush()

    def _result(self) -> None:
        data = self._host.relay(self._candidate.result, RESULT)
        if not data:
            self._poller.unregister(self._candidate.result)
            return
        if self._forward:
            return  # a program's are few and come at its end
        if self._results.complete(data):
            self._poller.register(0, select.POLLIN)
            if self._kind != MORE:
                self._clock.rest()
        if self._kind == MORE:
            self._held_since = self._held_since or now_us()
        else:
            self._send_held()

    def _send_held(self) -> None:
        self._host.flush()
        self._held_since = 0

    def _output(self, fd: int) -> bool:
        """Relay output, or count and drop it. False at end of file."""
        is_error = fd == self._candidate.stderr
        shown = self._forward and not (is_error and self._err_shown >= _ERR_SHOWN)
        got = len(self._host.relay(fd, (ERR if is_error else OUT) if shown else 0))
        if got == 0:
            if self._reason < 0:
                self._poller.unregister(fd)
            return False
        if is_error:
            self._err_shown += got
        self._room[fd] -= got
        if self._room[fd] < 0:
            self._reason = OUTPUT
            return False
        return True

    def _input(self) -> None:
        if self._left == 0:
            kind, self._left = self._host.header()
            if kind == STOP:
                self._reason = STOPPED
                return
            if kind not in (DATA, MORE, LAST):
                os._exit(72)
            if self._kind != START:
                self._clock.new_test()
            self._kind = kind
        if self._left:
            self._fed, self._taken = 0, self._host.take(self._left)
            self._left -= self._taken
            self._poller.register(0, 0)  # until this is fed; a hang-up is still reported
            self._poller.register(self._candidate.job, select.POLLOUT)
            self._feed()

    def _feed(self) -> None:
        try:
            while self._fed < self._taken:
                self._fed += os.write(self._candidate.job, self._host.incoming[self._fed : self._taken])
        except BlockingIOError:
            return
        except OSError:  # the candidate closed its input
            self._fed = self._taken
        self._poller.unregister(self._candidate.job)
        if self._kind == LAST and not self._left:
            os.close(self._candidate.job)
            self._candidate.job = -1
        if self._kind == LAST or self._left:
            self._poller.register(0, select.POLLIN)
        # else: the next input is read when the result of this one is there


def now_us() -> int:
    return time.monotonic_ns() // 1000


def _waited_us(pid: int) -> int:
    """How long the process's threads stood in the queue for a processor."""
    total = 0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat") as file:
                total += int(file.read().split()[1]) // 1000
    except (OSError, IndexError):
        return (1 << 64) - 1
    return total
