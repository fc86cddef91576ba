"""The host's end of one container: jobs out, frames in, a deadline on this side's clock.

A `Slot` runs one candidate at a time. What the candidate sent is parsed strictly and is never more than a claim; what
the zygote says about the end of the run is a fact. Anything that is the machine's fault raises `Fault`.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from dreamprm_sandbox import codec, relay, runner
from dreamprm_sandbox.codec import CodecError
from dreamprm_sandbox.limits import Limits

# Beyond the candidate's own wall limit: the zygote's share of a busy machine.
_GRACE_S = 30.0
_MAX_FRAME = 1 << 16
_TAGS = b"LVECSP"

Reason = Literal["exited", "stopped", "cpu", "wall", "output"]
_REASONS: tuple[Reason, ...] = ("exited", "stopped", "cpu", "wall", "output")


@dataclass(frozen=True, slots=True)
class Job:
    """What a candidate is forked for. `prelude` runs before the code; a program has no entry point."""

    mode: Literal["program", "calls", "script"]
    code: str
    prelude: str = ""
    entry_point: str | None = None


class Fault(Exception):
    """The sandbox failed, not the candidate: the run says nothing and is done again elsewhere."""


class Tampered(Exception):
    """The candidate wrote to the result pipe what no honest run writes."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One frame of the candidate. `tag` is one of L V E C S P; `value` is the decoded payload (None for L and S)."""

    tag: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended. Times are seconds; `test_*` are of the last test alone."""

    reason: Reason
    exit_code: int  # negative: the signal
    oom_kills: int
    cpu_s: float
    wall_s: float
    test_cpu_s: float
    test_wall_s: float
    waited_s: float  # for a processor

    @property
    def contended(self) -> bool:
        """Whether a time limit was met while the program did not have a processor to itself."""
        if self.reason == "wall":  # one that sleeps or waits for input would do so on any machine
            return self.waited_s > 0.1 * self.wall_s or self.cpu_s > 0.25 * self.wall_s
        return self.test_wall_s > 1.25 * self.test_cpu_s + 0.05


class Stream(Protocol):
    """Bytes to and from PID 1."""

    def send(self, data: bytes, timeout_s: float) -> None: ...
    def receive(self, timeout_s: float) -> bytes: ...
    def close(self) -> None: ...


class DockerStream:
    """An attached container: the engine multiplexes standard output and error in frames of its own."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._socket.setblocking(False)
        self._buffer = bytearray()
        self.errors = bytearray()

    def send(self, data: bytes, timeout_s: float) -> None:
        """Also takes in what arrives meanwhile: neither side may wait for the other to read first."""
        deadline = time.monotonic() + timeout_s
        rest = memoryview(data)
        try:
            while rest:
                try:
                    rest = rest[self._socket.send(rest) :]
                except BlockingIOError:
                    if self._wait(select.POLLIN | select.POLLOUT, deadline) & select.POLLIN:
                        self._take()
        except OSError as error:
            raise Fault(f"container gone: {error}{self._said()}") from None

    def receive(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while True:
            if len(self._buffer) >= 8:
                (size,) = struct.unpack_from("!I", self._buffer, 4)
                if len(self._buffer) >= 8 + size:
                    kind, data = self._buffer[0], bytes(self._buffer[8 : 8 + size])
                    del self._buffer[: 8 + size]
                    if kind == 1:
                        return data
                    self.errors += data[:2000]
                    continue
            self._wait(select.POLLIN, deadline)
            try:
                self._take()
            except BlockingIOError:
                continue
            except OSError as error:
                raise Fault(f"container gone: {error}{self._said()}") from None

    def _take(self) -> None:
        part = self._socket.recv(1 << 16)
        if not part:
            raise Fault(f"container gone{self._said()}")
        self._buffer += part

    def _wait(self, events: int, deadline: float) -> int:
        poller = select.poll()
        poller.register(self._socket, events)
        ready = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            raise Fault(f"no answer in time{self._said()}")
        return ready[0][1]

    def close(self) -> None:
        with contextlib.suppress(OSError):  # others may hold the socket: an engine that still writes to it would wait
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _said(self) -> str:
        text = self.errors.decode("utf-8", "replace").strip()
        return f": {text.splitlines()[-1][:200]}" if text else ""


class Slot:
    """One warm container. Not thread-safe: one owner at a time."""

    def __init__(self, stream: Stream, memory_mb: int) -> None:
        self.stream = stream
        self.memory_mb = memory_mb  # what every candidate of this slot may have
        self.runs = 0
        self._buffer = bytearray()
        self._frames: deque[tuple[int, bytes]] = deque()

    def hello(self, timeout_s: float) -> bytes:
        """The zygote's first frame: its proof (JSON)."""
        kind, payload = self._frame(time.monotonic() + timeout_s)
        if kind != relay.HELLO:
            raise Fault("not a zygote")
        return payload

    def start(self, job: Job, limits: Limits, *, stdin: bytes | None = None, output_bytes: int | None = None) -> Run:
        """Begin a run. With `stdin` it is a program that reads it; without, inputs follow one by one. `output_bytes`: a
        lower cap on its standard output than that of the limits."""
        self.runs += 1
        return Run(self, job, limits, stdin, output_bytes or limits.output_bytes)

    def _frame(self, deadline: float) -> tuple[int, bytes]:
        while not self._frames:
            self._buffer += self.stream.receive(max(0.0, deadline - time.monotonic()))
            at = 0
            while len(self._buffer) - at >= 8:
                kind, size = relay.HEADER.unpack_from(self._buffer, at)
                if size > _MAX_FRAME:
                    raise Fault("damaged stream")
                if len(self._buffer) - at < 8 + size:
                    break
                self._frames.append((kind, bytes(self._buffer[at + 8 : at + 8 + size])))
                at += 8 + size
            del self._buffer[:at]
        return self._frames.popleft()


class Run:
    """One candidate in a slot. `reply` and `end` read; after `end` the slot is free again."""

    def __init__(self, slot: Slot, job: Job, limits: Limits, stdin: bytes | None, output_bytes: int) -> None:
        self._slot = slot
        self._limits = limits
        self._claims = bytearray()  # bytes of the result pipe, not yet a whole frame
        self._most_claims = codec.MAX_BYTES + 64 if stdin is None else _MAX_FRAME  # a program has only errors to tell
        self._end: End | None = None
        self.waited_s = 0.0  # wall time of the last reply
        self.stdout = bytearray()
        self.stderr = bytearray()
        cpu_us, total_us = int(limits.time_limit_s * 1e6), int(limits.total_time_limit_s * 1e6)
        wall_us = int(limits.wall_limit_s * 1e6)
        memory_mb = limits.memory_mb if limits.memory_mb < slot.memory_mb else 0
        data = runner.pack_job(job.mode, memory_mb, job.prelude, job.code, job.entry_point)
        caps = (output_bytes, limits.error_bytes)
        message = _pack(
            relay.START, relay.LIMITS.pack(cpu_us, wall_us, max(total_us, cpu_us), *caps, stdin is not None)
        )
        message += _pack(relay.DATA, data) if stdin is None else _pack(relay.LAST, data + stdin)
        self._arm()
        slot.stream.send(message, limits.wall_limit_s + _GRACE_S)

    def send(self, inputs: Sequence[Any]) -> None:
        """The next inputs. Each reaches the candidate when its result for the one before is complete; the replies are
        read in the same order."""
        message = bytearray()
        for number, value in enumerate(inputs, 1):
            spec = codec.encode(value, 1 << 30, 1 << 30)
            kind = relay.DATA if number == len(inputs) else relay.MORE
            message += _pack(kind, struct.pack("!I", len(spec)) + spec)
        self._arm()
        self._slot.stream.send(bytes(message), self._limits.wall_limit_s + _GRACE_S)

    def reply(self) -> Reply | None:
        """The candidate's next frame; None when it ended without one. Raises Tampered or Fault."""
        while True:
            found = self._claim()
            if found is not None or self._end is not None:
                self.waited_s = time.monotonic() - self._armed_at
                self._arm()
                return found
            self._step()

    def end(self) -> End:
        """End the run (it may have ended by itself). Raises Tampered when anything was said beyond the replies read."""
        self.discard()
        if self._claims:
            raise Tampered("bytes beyond the result")
        return self.discard()

    def discard(self) -> End:
        """End the run whatever it still says: it is known to have failed."""
        if self._end is None:
            self._slot.stream.send(_pack(relay.STOP), _GRACE_S)
            self._deadline = time.monotonic() + self._limits.wall_limit_s + _GRACE_S
        return self.wait()

    def wait(self) -> End:
        """Wait until the run ends by itself or by its limits."""
        while self._end is None:
            self._step()
        return self._end

    def _arm(self) -> None:
        self._armed_at = time.monotonic()
        self._deadline = self._armed_at + self._limits.wall_limit_s + _GRACE_S

    def _step(self) -> None:
        kind, payload = self._slot._frame(self._deadline)
        if kind == relay.RESULT:
            self._claims += payload
            if len(self._claims) > self._most_claims:
                raise Tampered("a result beyond the cap on size")
        elif kind == relay.OUT:
            self.stdout += payload
        elif kind == relay.ERR:
            self.stderr += payload
        elif kind == relay.EXIT:
            reason, status, oom, *times = relay.ENDED.unpack(payload)
            seconds = (time_us / 1e6 for time_us in times)
            self._end = End(_REASONS[reason], os.waitstatus_to_exitcode(status), oom, *seconds)
        else:
            raise Fault("damaged stream")

    def _claim(self) -> Reply | None:
        if len(self._claims) < 5:
            if self._claims and self._claims[0] not in _TAGS:
                raise Tampered("not a result")
            return None
        (size,) = struct.unpack_from("!I", self._claims, 1)
        if self._claims[0] not in _TAGS or size > codec.MAX_BYTES:
            raise Tampered("not a result")
        if len(self._claims) < 5 + size:
            return None
        tag, payload = chr(self._claims[0]), bytes(self._claims[5 : 5 + size])
        del self._claims[: 5 + size]
        if tag in "LS" and payload:
            raise Tampered("not a result")
        try:
            return Reply(tag, codec.decode(payload) if tag in "VEC" else payload or None)
        except codec.TooLarge:
            return Reply("S")
        except CodecError as error:
            raise Tampered(f"not a value: {error}") from None


def _pack(kind: int, payload: bytes = b"") -> bytes:
    return relay.HEADER.pack(kind, len(payload)) + payload
