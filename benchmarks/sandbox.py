"""The sandbox: isolated programs a second per core, against one `exec_run` per program; all canonical solutions.

`--data FOLDER` names a folder with EvalPlus's files (HumanEvalPlus*.jsonl.gz, MbppPlus*.jsonl.gz, at any depth);
without it the canonical solutions are left out, and the result says so.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing import summary
from dreamprm_cli.problem import load_problem_set
from dreamprm_cli.types import Problem, Tests
from dreamprm_sandbox import Sandbox
from dreamprm_sandbox.docker import Engine
from dreamprm_sandbox.formats import Mode
from dreamprm_sandbox.limits import Limits

PROGRAM = "print(sum(map(int, input().split())))"
PROBLEM = Problem("sum", "", tests=Tests("plain", payload={"tests": [{"stdin": "1 2\n", "stdout": "3\n"}]}))
SETS = ("HumanEvalPlus", "MbppPlus")
_RUNS, _EXEC_RUNS = 1000, 20


def measure(repeats: int = 5, data: Path | None = None) -> dict[str, Any]:
    """Runs a second, best, median and worst of `repeats`, the sides in alternating order in one run."""
    return {"throughput": throughput(repeats), "canonical": canonical(data)}


def throughput(repeats: int) -> dict[str, Any]:
    """One worker, a worker a core, and `exec_run`, one call after the other in a container that is warm as well."""
    cores = os.cpu_count() or 1
    with Sandbox(workers=1) as one, Sandbox(workers=cores) as each, _Exec() as plain:
        sides: dict[str, Callable[[], float]] = {
            "one_worker": lambda: pooled(one, _RUNS),
            "worker_per_core": lambda: pooled(each, _RUNS * cores),
            "exec_run": lambda: plain.rate(_EXEC_RUNS),
        }
        for side in sides.values():  # containers, imports and caches are warm for all
            side()
        rates: dict[str, list[float]] = {name: [] for name in sides}
        cpu_ms: list[float] = []
        for turn in range(repeats):
            for name in sides if turn % 2 == 0 else reversed(sides):
                busy = _busy_s()
                rates[name].append(sides[name]())
                if name == "worker_per_core":
                    cpu_ms.append((_busy_s() - busy) / (_RUNS * cores) * 1000)
        best = {name: max(values) for name, values in rates.items()}
        return {
            "runs_per_s": {name: _best_is_most(values) for name, values in rates.items()},
            "runs_per_s_per_core": best["worker_per_core"] / cores,
            "cpu_ms_per_run_of_the_whole_machine": summary(cpu_ms),
            "pool_against_one_exec_run_per_program": best["worker_per_core"] / best["exec_run"],
            "one_worker_against_one_exec_run_per_program": best["one_worker"] / best["exec_run"],
            "isolation": one.isolation,
        }


def pooled(box: Sandbox, runs: int) -> float:
    """Runs a second of a program that adds two numbers. Raises RuntimeError when one of them is not passed."""
    begin = time.perf_counter()
    found = Counter(verdict.status for verdict in box.grade((PROBLEM, f"{PROGRAM}  # {i}") for i in range(runs)))
    seconds = time.perf_counter() - begin
    if found != Counter(PASS=runs):
        raise RuntimeError(f"not all passed: {dict(found)}")
    return runs / seconds


def canonical(data: Path | None) -> dict[str, Any]:
    """Every canonical solution, strict and compat. `seconds` is grading alone; the expected results, which the
    sandbox computes once for a problem, are apart."""
    if data is None:
        return {"skipped": "no --data FOLDER with EvalPlus's files"}
    found: dict[str, Any] = {}
    for name in SETS:
        path = next(iter(sorted(data.rglob(f"{name}*.jsonl.gz"))), None)
        if path is None:
            found[name] = {"skipped": f"no {name}*.jsonl.gz in the folder"}
            continue
        problems = load_problem_set(path)
        modes: tuple[Mode, ...] = ("strict", "evalplus")
        found[name] = {mode: _canonical(problems, mode) for mode in modes}
    return found


def _canonical(problems: Sequence[Problem], mode: Mode) -> dict[str, Any]:
    rows = [problem.tests.payload for problem in problems]
    jobs = [(problem, row["prompt"] + row["canonical_solution"]) for problem, row in zip(problems, rows, strict=True)]
    with Sandbox(mode=mode) as box:
        begin = time.perf_counter()
        for problem in problems:
            box.prepare(problem)
        prepared = time.perf_counter()
        verdicts = list(box.grade(jobs))
        seconds = time.perf_counter() - prepared
    graded = zip(problems, verdicts, strict=True)
    failed = {problem.id: verdict.status for problem, verdict in graded if verdict.status != "PASS"}
    return {
        "passed": len(jobs) - len(failed),
        "programs": len(jobs),
        "tests": sum(verdict.total for verdict in verdicts),
        "failed": failed,
        "expected_results_s": round(prepared - begin, 2),
        "seconds": round(seconds, 2),
        "seconds_per_1000_programs": round(seconds / len(jobs) * 1000, 1),
    }


class _Exec:
    """The usual way: one `exec_run` per program, in a container of the same image."""

    def __enter__(self) -> _Exec:
        self._engine = Engine(Limits())
        waits = ["/usr/bin/python3", "-c", "import time; time.sleep(900)"]
        self._container = self._engine.client.containers.run(
            self._engine.image, waits, detach=True, auto_remove=True, network_mode="none", init=True
        )
        return self

    def rate(self, runs: int) -> float:
        begin = time.perf_counter()
        for i in range(runs):
            line = f"echo 1 2 | /usr/bin/python3 -c '{PROGRAM}  # {i}'"
            status, output = self._container.exec_run(["/bin/sh", "-c", line])
            if status != 0 or output != b"3\n":
                raise RuntimeError(f"exec_run: {status} {output!r}")
        return runs / (time.perf_counter() - begin)

    def __exit__(self, *_: object) -> None:
        self._container.remove(force=True)
        self._engine.close()


def _best_is_most(rates: Sequence[float]) -> dict[str, float]:
    found = summary(rates)
    return {"best": found["worst"], "median": found["median"], "worst": found["best"]}


def _busy_s() -> float:
    """Processor seconds that all processes of the machine have used: what a run costs in the daemon counts as well."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
