"""A recorded run once more, in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from dreamprm_cli.events import Event, RunResumed


def paced(
    events: Iterable[Event],
    speed: float = 1.0,
    *,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[Event]:
    """Yield each event when its time has come, `speed` times as fast as it was; 0 means all at once.

    The pause between the processes of a resumed run is left out.
    """
    begin = now()
    origin: float | None = None
    for event in events:
        if origin is None or isinstance(event, RunResumed):
            begin, origin = now(), event.t
        elif speed > 0:
            wait = begin + (event.t - origin) / speed - now()
            if wait > 0:
                sleep(wait)
        yield event
