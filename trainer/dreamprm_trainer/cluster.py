"""Ray, as much of it as we need: a connection, and crews of actors that lose no work when a node goes.

Ray's own retries give a lost actor's calls to its successor, which waits for a node like the lost one. Here a call goes
to another actor of the crew at once, and a successor joins when there is a node for it. Calls repeat nothing that
counts: what they write or judge depends on their arguments alone.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from dreamprm_cli.errors import ClusterUnavailable, DreamPRMError

_ATTEMPTS = 5  # of one call; a call that takes so many actors down is what takes them down
_PATIENCE_S = 900.0  # for an actor to be there: a large model loads slowly
_POLL_S = 0.2
_LEAVING_S = 15.0


@contextmanager
def connected(address: str, resources: dict[str, float] | None = None) -> Iterator[Any]:
    """The `ray` module, connected until the block ends.

    address: of a running cluster (`HOST:PORT`, `auto`, `ray://HOST:PORT`), or `local`: one of this machine alone, with
    `resources`, which ends with the block. Raises ClusterUnavailable.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ClusterUnavailable(f"--engine ray needs ray ({error})", "pip install 'dreamprm[ray]'") from None
    # Ray tells of lost nodes on standard output, which is the result's; there is no public way to say no.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    try:
        if address == "local":
            ray.init(address="local", include_dashboard=False, resources=resources or {}, **quiet)
        else:
            ray.init(address=address, **quiet)
    except Exception as error:  # Ray raises bare ones too, as when its processes are not up within half a minute
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ClusterUnavailable(
            f"no Ray cluster at {address}: {first}", "start one with `ray start --head`, or give --address local"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


@dataclass(eq=False, slots=True)
class _Member:
    """An actor. opening: its `open`, None once that is done; tries: of its place, lost before they were open; calls:
    under way."""

    number: int
    actor: Any
    opening: Any
    tries: int = 0
    calls: int = 0


class Crew:
    """Actors of one kind, and calls to whichever has room. Thread-safe; calls wait in the threads that make them.

    start: makes the actor with a number. Actors have `open()`, `do(*arguments)` and `close()`; a DreamPRMError that
    `open` or `do` returns says that this actor cannot work. ahead: calls that one actor is given at once, so that it
    need not wait for the next.
    """

    def __init__(self, ray: Any, start: Callable[[int], Any], size: int, ahead: int = 2) -> None:
        self.size, self.ahead = size, ahead
        self._ray, self._start = ray, start
        self._changed = threading.Condition()
        self._members: list[_Member] = []
        self._fault: DreamPRMError | None = None
        self._closed = False
        for number in range(size):
            self._add(number)

    @property
    def width(self) -> int:
        """How many calls keep all actors busy."""
        return self.size * self.ahead

    def call(self, *arguments: Any) -> Any:
        """What `do` returns, from the first actor that lives to tell. Raises the last DreamPRMError when no actor can
        work, or when one call after the other fails."""
        fault: DreamPRMError = ClusterUnavailable("not tried")
        for _ in range(_ATTEMPTS):
            member = self._take()
            try:
                found = self._ray.get(member.actor.do.remote(*arguments))
            except self._ray.exceptions.RayTaskError:
                raise  # a mistake in our own code
            except self._ray.exceptions.RayError as error:
                fault = ClusterUnavailable(
                    f"{_ATTEMPTS} workers in a row were lost over one call: {str(error).splitlines()[0]}",
                    "look at the logs of the cluster's nodes; what is done is kept",
                )
                self._lose(member)
                continue
            finally:
                with self._changed:
                    member.calls -= 1
                    self._changed.notify_all()
            if not isinstance(found, DreamPRMError):
                return found
            fault = found
            self._lose(member, found)
        raise fault

    def _take(self) -> _Member:
        """The member with the fewest calls, once one is open and has room. Raises DreamPRMError."""
        deadline = time.monotonic() + _PATIENCE_S
        with self._changed:
            while True:
                if self._closed:
                    raise ClusterUnavailable("the crew has been sent home")
                self._settle()
                if not self._members:
                    raise self._fault or ClusterUnavailable("no worker is left")
                ready = [one for one in self._members if one.opening is None and one.calls < self.ahead]
                if ready:
                    chosen = min(ready, key=lambda one: one.calls)
                    chosen.calls += 1
                    return chosen
                if time.monotonic() > deadline and all(one.opening is not None for one in self._members):
                    raise ClusterUnavailable(
                        f"no worker was ready within {_PATIENCE_S:.0f} s",
                        "has the cluster what it needs? `ray status`",
                    )
                self._changed.wait(_POLL_S)

    def _settle(self) -> None:
        """Find out who has opened, and who cannot. With the lock held."""
        opening = {one.opening: one for one in self._members if one.opening is not None}
        if not opening:
            return
        done, _ = self._ray.wait(list(opening), num_returns=len(opening), timeout=0)
        for reference in done:
            member = opening[reference]
            try:
                found = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError:
                raise
            except self._ray.exceptions.RayError as error:
                first = str(error).strip().splitlines()[0]
                gone = ClusterUnavailable(f"workers are lost before they are ready: {first}", "see the nodes' logs")
                self._replace(member, gone if member.tries + 1 >= _ATTEMPTS else None)
                continue
            member.opening = None
            if isinstance(found, DreamPRMError):
                self._replace(member, found)

    def _lose(self, member: _Member, fault: DreamPRMError | None = None) -> None:
        with self._changed:
            if member in self._members and not self._closed:
                self._replace(member, fault)
            self._changed.notify_all()

    def _replace(self, member: _Member, fault: DreamPRMError | None = None) -> None:
        """Another in the place of one that was lost; none for one that cannot work. With the lock held."""
        self._members.remove(member)
        with suppress(Exception):
            self._ray.kill(member.actor)
        if fault is None:
            self._add(member.number, 0 if member.opening is None else member.tries + 1)
        else:
            self._fault = fault

    def _add(self, number: int, tries: int = 0) -> None:
        actor = self._start(number)
        self._members.append(_Member(number, actor, actor.open.remote(), tries))

    def close(self) -> None:
        """Calls under way are given up."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            members, self._members = self._members, []
            self._changed.notify_all()
        leaving = [one.actor.close.remote() for one in members if one.opening is None]
        with suppress(self._ray.exceptions.RayError):
            self._ray.wait(leaving, num_returns=len(leaving), timeout=_LEAVING_S) if leaving else None
        for one in members:
            with suppress(Exception):
                self._ray.kill(one.actor)
