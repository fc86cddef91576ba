"""Grading on a Ray cluster of node processes on this machine: two workers against one, and what Ray costs a program.

Scaling is told on programs of a fixed amount of work, which only a second core can speed up; the cost on programs that
take one second by the clock, whatever the machine does beside.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.timing import pair
from dreamprm_cli.types import Problem, Tests
from dreamprm_sandbox import Sandbox
from dreamprm_trainer.cluster import connected
from dreamprm_trainer.crews import SandboxCrew

PROGRAMS, LOOPS = 24, 6_000_000
SECONDS, SECOND_LONG = 1.0, 8

PROBLEM = Problem(
    "work",
    "Print the answer.",
    tests=Tests("plain", payload={"tests": [{"stdin": "", "stdout": "ok"}]}),
    time_limit_s=30.0,
)
WORK = "total = 0\nfor number in range({loops}):\n    total += number\nprint('ok')  # {number}\n"
WAIT = (
    "import time\nend = time.perf_counter() + {seconds}\nwhile time.perf_counter() < end:\n    pass\n"
    "print('ok')  # {number}\n"
)


@contextlib.contextmanager
def _cluster(nodes: int) -> Iterator[str]:
    """The address of a head without work of its own and `nodes` node processes, a container each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=1, resources={"docker": 1}, include_dashboard=False)
        yield made.address
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            made.shutdown()


def _seconds(box: Any, programs: list[str]) -> float:
    """Wall seconds of grading all programs. Raises RuntimeError where one does not pass."""
    begin = time.perf_counter()
    verdicts = list(box.each((PROBLEM, program) for program in programs))
    taken = time.perf_counter() - begin
    if not all(getattr(verdict, "status", "") == "PASS" for verdict in verdicts):
        raise RuntimeError(f"a program that must pass did not: {verdicts}")
    return taken


def measure(repeats: int = 5) -> dict[str, Any]:
    work = [WORK.format(loops=LOOPS, number=number) for number in range(PROGRAMS)]
    wait = [WAIT.format(seconds=SECONDS, number=number) for number in range(SECOND_LONG)]
    with _cluster(2) as address, connected(address) as ray:
        with SandboxCrew(ray, 1) as one, Sandbox(1) as here:
            for box in (one, here):  # containers are up before the clock runs
                _seconds(box, wait[:1])
            cost = pair(lambda: _seconds(one, wait), lambda: _seconds(here, wait), repeats)
        # One crew at a time: each container of the cluster is offered once.
        readings: dict[int, list[float]] = {1: [], 2: []}
        for turn in range(repeats):
            for workers in (1, 2) if turn % 2 == 0 else (2, 1):
                with SandboxCrew(ray, workers) as crew:
                    _seconds(crew, work[:workers])
                    readings[workers].append(_seconds(crew, work))
    overhead = (cost["first_s"]["best"] - cost["second_s"]["best"]) / SECOND_LONG
    return {
        "programs": PROGRAMS,
        "one_worker_s": sorted(readings[1]),
        "two_workers_s": sorted(readings[2]),
        "two_workers_against_one": min(readings[1]) / min(readings[2]),
        "one_second_programs": {"ray": cost["first_s"], "here": cost["second_s"]},
        "overhead_of_a_one_second_program": overhead / SECONDS,
    }
