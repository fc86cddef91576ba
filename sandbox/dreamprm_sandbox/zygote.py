"""PID 1 of a sandbox container: forks one process per candidate, relays its bytes, ends everything after it.

Covered: relay between the one attached stream and the candidate's pipes, limits on processor time, wall time and
output, proof that nothing survives a run (processes, files). Standard library only; runs alone in the container.
Not covered: any understanding of what is relayed. Candidates' bytes pass through fixed buffers that are cleared
before the next fork, so that no candidate inherits another's inputs or results in its memory.

From the host: header `kind u8, 3 pad, length u32` and payload; kinds START (a `Limits` struct), DATA (to the
candidate's job pipe; begins a new test), EOF, STOP. To the host, the same header with kinds HELLO (JSON), RESULT, OUT,
ERR (bytes as they come) and EXIT (an `Exit` struct), which ends a run. End of file on the host's side ends PID 1 and
with it every process of the container.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import struct
import sys
import time
from typing import NoReturn

from dreamprm_sandbox import proof, runner
from dreamprm_sandbox.cgroup import Meter

START, DATA, EOF, STOP = 1, 2, 3, 4
HELLO, RESULT, OUT, ERR, EXIT = 11, 12, 13, 14, 15
EXITED, STOPPED, CPU, WALL, OUTPUT = range(5)  # why a run ended
HEADER = struct.Struct("!BxxxI")
# cpu_us and wall_us of one test, cpu_us of the whole run, caps on standard output and error, forward output?
LIMITS = struct.Struct("!QQQIIB")
# reason, wait status, out-of-memory kills, cpu_us and wall_us of the run, cpu_us and wall_us of the last test,
# us the candidate's threads waited for a processor (all ones: the kernel does not tell)
ENDED = struct.Struct("!BxxxiIQQQQQ")

CANDIDATE = 61234  # user and group
_CHUNK = 1 << 15
_ERR_SHOWN = 4096
_CLEANING_S = 5.0


class Zygote:
    def __init__(self) -> None:
        self.meter = Meter()
        self._in = bytearray(_CHUNK)
        self._out = bytearray(8 * _CHUNK)
        self._in_view, self._out_view = memoryview(self._in), memoryview(self._out)
        self._used = 0  # bytes of _out that wait to be sent
        self._dirty_in = self._dirty_out = 0  # high-water marks since the last clearing
        self._clean = [_space(path) for path in proof.WRITABLE]
        self._left = 0  # bytes of the current DATA frame still to be read
        self.child = 0

    # the stream to the host

    def send(self, kind: int, payload: bytes) -> None:
        self._reserve(len(payload))
        HEADER.pack_into(self._out, self._used, kind, len(payload))
        self._out[self._used + 8 : self._used + 8 + len(payload)] = payload
        self._used += 8 + len(payload)

    def flush(self) -> None:
        self._dirty_out = max(self._dirty_out, self._used)
        sent = 0
        while sent < self._used:
            sent += os.write(1, self._out_view[sent : self._used])
        self._used = 0

    def _reserve(self, size: int) -> None:
        if self._used + 8 + size > len(self._out):
            self.flush()

    def _header(self) -> tuple[int, int]:
        """The next frame's kind and length. The host closing the stream is the end of this container."""
        got = 0
        while got < 8:
            part = os.readv(0, [self._in_view[got:8]])
            if part == 0:
                os._exit(0)
            got += part
        kind, size = HEADER.unpack_from(self._in)
        return kind, size

    def _payload(self, size: int) -> int:
        """Up to one chunk of the payload, into the buffer."""
        got = os.readv(0, [self._in_view[: min(size, _CHUNK)]])
        if got == 0:
            os._exit(0)
        self._dirty_in = max(self._dirty_in, got)
        return got

    # one candidate

    def prefork(self) -> None:
        """Fork the next candidate before its job is known: it has never seen another's."""
        job_read, self.job = os.pipe()
        self.result, result_write = os.pipe()
        self.stdout, stdout_write = os.pipe()
        self.stderr, stderr_write = os.pipe()
        for fd in (job_read, stdout_write, stderr_write):
            os.fchown(fd, CANDIDATE, CANDIDATE)  # so that /dev/stdin and the like can be opened
        self.child = os.fork()
        if self.child == 0:
            try:
                os.dup2(job_read, 0)
                os.dup2(stdout_write, 1)
                os.dup2(stderr_write, 2)
                os.dup2(result_write, runner.RESULT_FD, inheritable=False)
                os.closerange(runner.RESULT_FD + 1, 64)
                become_candidate()
                runner.run()
            finally:
                os._exit(70)
        _first_to_be_killed(self.child)
        for fd in (job_read, result_write, stdout_write, stderr_write):
            os.close(fd)
        for fd in (self.job, self.result, self.stdout, self.stderr):
            os.set_blocking(fd, False)

    def serve(self) -> NoReturn:
        while True:
            self.prefork()
            kind, size = self._header()
            while kind != START:  # what was still on its way to the candidate before
                while size:
                    size -= self._payload(size)
                kind, size = self._header()
            got = 0
            while got < size:
                got += os.readv(0, [self._in_view[got:size]])
            limits = LIMITS.unpack_from(self._in)
            if os.waitpid(self.child, os.WNOHANG)[0]:
                os._exit(71)  # died before its job: the machine's fault
            self.run(*limits)
            self._clear()

    def run(self, cpu_us: int, wall_us: int, total_cpu_us: int, out_cap: int, err_cap: int, forward: int) -> None:
        """Relay until the candidate ends or a limit does, then report."""
        oom_before = self.meter.oom_kills()
        started = test_started = time.monotonic_ns() // 1000
        cpu_started = test_cpu_started = self.meter.cpu_us()
        caps = {self.stdout: out_cap, self.stderr: err_cap}
        err_shown = 0
        pidfd = os.pidfd_open(self.child)
        poller = select.poll()
        for fd in (pidfd, 0, self.result, self.stdout, self.stderr):
            poller.register(fd, select.POLLIN)
        pending = (0, 0)  # the part of _in that the candidate has not taken yet
        reason = -1
        check_at = test_started + cpu_us  # the group cannot use more than one processor
        while reason < 0:
            now = time.monotonic_ns() // 1000
            if now >= check_at:
                cpu = self.meter.cpu_us()
                if cpu - test_cpu_started >= cpu_us or cpu - cpu_started >= total_cpu_us:
                    reason = CPU
                    break
                if now - test_started >= wall_us:
                    reason = WALL
                    break
                check_at = now + max(
                    2000,
                    min(
                        cpu_us - (cpu - test_cpu_started),
                        total_cpu_us - (cpu - cpu_started),
                        wall_us - (now - test_started),
                    ),
                )
            for fd, event in poller.poll(max(0, check_at - now) / 1000 + 1):
                if fd == pidfd:
                    reason = EXITED
                elif fd == self.result:
                    if not self._relay(fd, RESULT):
                        poller.unregister(fd)
                    self.flush()
                elif fd == self.stdout or fd == self.stderr:
                    kind = (OUT if fd == self.stdout else ERR) if forward else 0
                    if fd == self.stderr and err_shown >= _ERR_SHOWN:
                        kind = 0
                    got = self._relay(fd, kind)
                    if got == 0:
                        poller.unregister(fd)
                    elif fd == self.stderr:
                        err_shown += got
                    caps[fd] -= got
                    if caps[fd] < 0 and reason < 0:
                        reason = OUTPUT
                elif fd == self.job and event:
                    pending = self._feed(pending)
                    if pending[0] == pending[1]:
                        poller.unregister(self.job)
                        poller.register(0, select.POLLIN)
                elif fd == 0:
                    if self._left == 0:
                        kind, size = self._header()
                        if kind == DATA:
                            self._left = size
                            test_started = time.monotonic_ns() // 1000
                            test_cpu_started = self.meter.cpu_us()
                            check_at = test_started + cpu_us
                        elif kind == EOF:
                            os.close(self.job)
                            self.job = -1
                        elif kind == STOP:
                            reason = STOPPED
                        else:
                            os._exit(72)
                    if self._left:
                        got = self._payload(self._left)
                        self._left -= got
                        pending = self._feed((0, got))
                        if pending[0] < pending[1]:
                            poller.unregister(0)
                            poller.register(self.job, select.POLLOUT)
        ended = time.monotonic_ns() // 1000
        cpu = self.meter.cpu_us()
        waited = _waited_us(self.child) if reason in (CPU, WALL) else 0
        status = self._end()
        for fd, kind in ((self.result, RESULT), (self.stdout, OUT if forward else 0)):
            while got := self._relay(fd, kind):
                if fd == self.stdout:
                    caps[fd] -= got
                    if caps[fd] < 0:
                        reason = OUTPUT
                        break
        for fd in (pidfd, self.result, self.stdout, self.stderr, self.job):
            if fd >= 0:
                os.close(fd)
        while self._left:  # the rest of an input that nobody reads
            self._left -= self._payload(self._left)
        self.send(
            EXIT,
            ENDED.pack(
                reason,
                status,
                self.meter.oom_kills() - oom_before,
                cpu - cpu_started,
                ended - started,
                cpu - test_cpu_started,
                ended - test_started,
                waited,
            ),
        )
        self.flush()

    def _relay(self, fd: int, kind: int) -> int:
        """Read what is there into the outgoing buffer as one frame (kind 0: drop it). 0 at end of file."""
        self._reserve(_CHUNK)
        start = self._used + 8
        try:
            got = os.readv(fd, [self._out_view[start : start + _CHUNK]])
        except BlockingIOError:
            return 0
        self._dirty_out = max(self._dirty_out, start + got)
        if got and kind:
            HEADER.pack_into(self._out, self._used, kind, got)
            self._used = start + got
        return got

    def _feed(self, pending: tuple[int, int]) -> tuple[int, int]:
        start, end = pending
        try:
            while start < end:
                start += os.write(self.job, self._in_view[start:end])
        except BlockingIOError:
            pass
        except OSError:  # the candidate closed its input, or the host sends to a closed one
            start = end
        return start, end

    # after a candidate

    def _end(self) -> int:
        """Kill every other process of the container and wait until none is left. The candidate's wait status."""
        status = 0
        deadline = time.monotonic() + _CLEANING_S
        try:
            found, status = os.waitpid(self.child, os.WNOHANG)
        except ChildProcessError:
            found = self.child
        while True:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            try:
                pid, its_status = os.waitpid(-1, 0)
            except ChildProcessError:
                return status
            if pid == self.child and not found:
                status = its_status
            if time.monotonic() > deadline:
                os._exit(73)

    def _clear(self) -> None:
        """Leave no trace of the run for the next candidate. A trace that stays is the end of this container."""
        self._in[: self._dirty_in] = bytes(self._dirty_in)
        self._out[: self._dirty_out] = bytes(self._dirty_out)
        self._dirty_in = self._dirty_out = 0
        if [_space(path) for path in proof.WRITABLE] == self._clean:
            return
        wiper = os.fork()
        if wiper == 0:
            try:
                become_candidate()
                for path in proof.WRITABLE:
                    _wipe(path)
            finally:
                os._exit(0)
        deadline = time.monotonic() + _CLEANING_S
        while os.waitpid(wiper, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os._exit(74)
            time.sleep(0.0005)
        if [_space(path) for path in proof.WRITABLE] != self._clean:
            os._exit(75)


def become_candidate() -> None:
    """Give up root. What follows the change of user stays hidden from other processes, as PID 1 is."""
    os.setgroups([])
    os.setresgid(CANDIDATE, CANDIDATE, CANDIDATE)
    os.setresuid(CANDIDATE, CANDIDATE, CANDIDATE)
    os.setsid()


def _first_to_be_killed(pid: int) -> None:
    """When memory runs out, the kernel is to take the candidate, not PID 1. It cannot undo what root wrote here."""
    fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY)
    os.write(fd, b"1000")
    os.close(fd)


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


def _space(path: str) -> tuple[int, int]:
    found = os.statvfs(path)
    return found.f_bfree, found.f_ffree


def _wipe(path: str) -> None:
    """Remove what is in a folder; not through links, and not beyond what the candidate itself could remove."""
    with os.scandir(path) as entries:
        for entry in list(entries):
            try:
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
                    _wipe(entry.path)
                    os.rmdir(entry.path)
                else:
                    os.unlink(entry.path)
            except OSError:
                continue


def _prove(zygote: Zygote) -> bytes:
    """The facts for the host to judge, gathered in a process that is what candidates will be."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            become_candidate()
            os.write(write, json.dumps(proof.gather()).encode())
            for path in proof.WRITABLE:
                _wipe(path)
        finally:
            os._exit(0)
    os.close(write)
    parts = []
    while part := os.read(read, 1 << 16):
        parts.append(part)
    os.close(read)
    os.waitpid(pid, 0)
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    report = {
        "candidate": json.loads(b"".join(parts)),
        "pid1_capabilities": status["CapPrm"].strip(),
        "meter": zygote.meter.complete,
        "python": sys.version.split()[0],
    }
    return json.dumps(report).encode()


def main(memory_bytes: int) -> NoReturn:
    """`memory_bytes`: the budget of every candidate."""
    if os.getpid() != 1:
        sys.exit("the zygote runs as PID 1 of a container only")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # PID 1 is not reached by signals it has no handler for
    # A change of group makes a process undumpable: candidates cannot read PID 1 through /proc, nor reopen its pipes.
    os.setegid(CANDIDATE)
    os.setegid(0)
    for path in proof.WRITABLE:
        os.chmod(path, 0o1777)  # an engine may have copied the rights of the image's folder
    os.chdir("/tmp")
    os.umask(0o022)
    zygote = Zygote()
    zygote.send(HELLO, _prove(zygote))
    zygote.flush()
    runner.limit(memory_bytes)
    gc.collect()
    gc.freeze()
    gc.disable()
    zygote.serve()
