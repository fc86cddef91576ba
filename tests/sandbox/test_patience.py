"""How long a run of a repository's tests may take: by its own time, not by that of a busy machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from dreamprm_sandbox.forked import Patience, _waited_s


def test_time_without_a_processor_does_not_count() -> None:
    now, waited = [0.0], [3.0]
    patience = Patience(10.0, 1, lambda: now[0], lambda process: waited[0])
    now[0] = 9.0
    assert patience.left_s() == 1.0
    now[0], waited[0] = 50.0, 48.0
    assert patience.left_s() == pytest.approx(10 - 50 / 6)
    waited[0] = 43.0
    assert patience.left_s() == 0.0
    patience.begin()
    assert patience.left_s() == 10.0


def test_however_busy_the_machine_is_it_ends() -> None:
    now = [0.0]
    patience = Patience(10.0, 1, lambda: now[0], lambda process: now[0])
    now[0] = 59.0
    assert patience.left_s() > 0
    now[0] = 60.0
    assert patience.left_s() == 0.0


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="the kernel tells nothing")
def test_two_that_share_a_processor_wait_half_of_the_time() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}})\nwhile True: pass"
    both = [subprocess.Popen([sys.executable, "-c", code], start_new_session=False) for _ in range(2)]
    try:
        time.sleep(1.0)
        before = [_waited_s(process.pid) for process in both]
        time.sleep(2.0)
        waited = [_waited_s(process.pid) - start for process, start in zip(both, before, strict=True)]
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert 1.0 < sum(waited) < 4.1
    assert _waited_s(both[0].pid) == 0.0
