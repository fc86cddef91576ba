from __future__ import annotations

import pytest

from dreamprm_cli import events as ev
from dreamprm_cli.view.replay import paced


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.time += seconds


def times(events: list[ev.Event], speed: float, work: float = 0.0) -> list[float]:
    clock = Clock()
    seen = []
    for _ in paced(events, speed, sleep=clock.sleep, now=clock.now):
        seen.append(round(clock.time - 100.0, 6))
        clock.time += work
    return seen


def notices(*at: float) -> list[ev.Event]:
    return [ev.Notice(t=t, text="") for t in at]


@pytest.mark.parametrize(("speed", "expected"), [(1.0, [0, 0.5, 3]), (2.0, [0, 0.25, 1.5]), (0.0, [0, 0, 0])])
def test_events_come_in_their_own_time(speed: float, expected: list[float]) -> None:
    assert times(notices(2.0, 2.5, 5.0), speed) == expected


def test_slow_drawing_does_not_add_up() -> None:
    assert times(notices(0, 1, 2, 3), 1.0, work=0.4) == [0, 1, 2, 3]


def test_the_pause_before_a_resume_is_left_out() -> None:
    events = [*notices(0, 1), ev.RunResumed(t=500.0), *notices(501.0)]
    assert times(events, 1.0) == [0, 1, 1, 2]


def test_times_that_start_again_do_not_wait() -> None:
    events = [*notices(0, 5), ev.RunResumed(t=0.0), *notices(1.0)]
    assert times(events, 1.0) == [0, 5, 5, 6]


def test_events_pass_unchanged() -> None:
    events = notices(0, 0.001)
    assert list(paced(events, 0)) == events
