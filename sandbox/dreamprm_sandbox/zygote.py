"""PID 1 of a sandbox container: forks one process per candidate and ends everything after it.

Covered: the fork, giving up root, proof that nothing survives a run (processes, files), the proof for the host.
Standard library only; runs alone in the container. Not covered: the relay between host and candidate, and the limits
while it runs (relay.py), what the candidate's process does (runner.py). End of file on the host's side ends PID 1 and
with it every process of the container.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import time
from typing import NoReturn

from dreamprm_sandbox import proof, rehearsal, relay, runner
from dreamprm_sandbox.cgroup import Meter
from dreamprm_sandbox.relay import Candidate, HostStream, Run

CANDIDATE = 61234  # user and group
WAITING = 8  # processes forked together, each for one candidate
_CLEANING_S = 5.0


class Zygote:
    def __init__(self) -> None:
        self.meter = Meter()
        self.host = HostStream()
        self._clean = [_space(path) for path in proof.WRITABLE]
        self._waiting: list[Candidate] = []
        self._oom_score = os.open("/proc/self/oom_score_adj", os.O_RDWR)
        self._own_oom_score = os.pread(self._oom_score, 16, 0)

    def serve(self) -> NoReturn:
        while True:
            if not self._waiting:
                self._prefork()
            candidate = self._waiting.pop()
            kind, size = self.host.header()
            while kind != relay.START:  # what was still on its way to the candidate before
                self.host.skip(size)
                kind, size = self.host.header()
            self.host.take(size, whole=True)
            limits = relay.LIMITS.unpack_from(self.host.incoming)
            if os.waitpid(candidate.pid, os.WNOHANG)[0]:
                os._exit(71)  # died before its job: the machine's fault
            run = Run(self.host, self.meter, candidate, limits)
            run.relay()
            run.report(self._end(candidate.pid))
            candidate.close()
            self._clear()

    def _prefork(self) -> None:
        """Fork for the next candidates before any of their jobs is known: none has seen another's. Several together,
        because what PID 1 writes after a fork is copied for it, page by page: once for all of them."""
        os.pwrite(self._oom_score, b"1000", 0)  # of all, PID 1 is to be the last that the kernel takes for its memory
        self._waiting += [self._fork() for _ in range(WAITING)]
        os.pwrite(self._oom_score, self._own_oom_score, 0)

    def _fork(self) -> Candidate:
        """A process that waits for its job as root, out of reach of the candidates that run before it."""
        job_read, job = os.pipe()
        result, result_write = os.pipe()
        stdout, stdout_write = os.pipe()
        stderr, stderr_write = os.pipe()
        for fd in (job_read, stdout_write, stderr_write):
            os.fchown(fd, CANDIDATE, CANDIDATE)  # so that /dev/stdin and the like can be opened
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(job_read, 0)
                os.dup2(stdout_write, 1)
                os.dup2(stderr_write, 2)
                os.dup2(result_write, runner.RESULT_FD, False)
                os.closerange(runner.RESULT_FD + 1, 1024)
                header = runner.await_job()
                become_candidate()
                runner.run(header)
            finally:
                os._exit(70)
        for fd in (job_read, result_write, stdout_write, stderr_write):
            os.close(fd)
        for fd in (job, result, stdout, stderr):
            os.set_blocking(fd, False)
        return Candidate(pid, job, result, stdout, stderr)

    def _end(self, pid: int) -> int:
        """Kill every process of the candidate and wait until none is left. The wait status of its first."""
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if self.meter.tasks() != 1 + len(self._waiting):
            self._end_all()
        return status

    def _end_all(self) -> None:
        """Something outlives the candidate: end every other process of the container, those that wait as well."""
        deadline = time.monotonic() + _CLEANING_S
        while True:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
            if time.monotonic() > deadline:
                os._exit(73)
        while self._waiting:
            self._waiting.pop().close()

    def _clear(self) -> None:
        """Leave no trace of the run for the next candidate. A trace that stays is the end of this container."""
        self.host.clear()
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


def _space(path: str) -> tuple[int, int]:
    found = os.statvfs(path)
    return found.f_bfree, found.f_ffree


def _wipe(path: str) -> None:
    """Remove what is in a folder; not through links, and not beyond what the candidate itself could remove. Step by
    step, for a tree may be deeper than a path, a stack or the open files reach. Raises OSError for what stays."""
    os.chdir(path)
    above: list[str] = []
    while True:
        inner = _unlink_files()
        if inner is not None:
            os.chmod(inner, 0o700)
            os.chdir(inner)
            above.append(inner)
        elif above:
            os.chdir("..")
            os.rmdir(above.pop())
        else:
            return


def _unlink_files() -> str | None:
    """Remove the files of the working directory up to the first folder, which is returned."""
    with os.scandir() as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                return entry.name
            os.unlink(entry.name)
    return None


def _prove(meter: Meter) -> bytes:
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
        "meter": meter.complete,
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
    zygote.host.send(relay.HELLO, _prove(zygote.meter))
    zygote.host.flush()
    runner.limit(memory_bytes)
    runner.set_stage()
    rehearsal.rehearse()
    gc.collect()
    gc.freeze()
    gc.disable()
    zygote.serve()
