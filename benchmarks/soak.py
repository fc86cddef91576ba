"""`python -m benchmarks.soak [SECTION ...]`: what takes too long for every test run.

memory: 10,000 gradings, the host's memory flat, nothing left behind. load: 1,000 honest programs on a machine with
twice as many busy processes as cores. starts: 50 pools at once. faults: 500 gradings among kills.
Prints JSON, and keeps it in benchmarks/results/soak.json with the machine; a section that was not run keeps its last
result. Exit code 1 when a section is not ok.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import faults
from benchmarks.__main__ import RESULTS, machine
from dreamprm_cli.types import Problem, Tests
from dreamprm_sandbox import Sandbox, docker

FLAT_MB = 20.0
_WARM_UP = 500
_LIMIT_S = 0.5
_START_BUDGET_S = 300.0
_CASES = [{"stdin": f"{n}\n", "stdout": f"{n * (n - 1) // 2}\n"} for n in (10, 1000)]
_SUM = Problem("sum-below", "", time_limit_s=_LIMIT_S, tests=Tests("plain", payload={"tests": _CASES}))
# Honest ways to add up the numbers below n: at once, slowly, with a little work, by waiting.
_HONEST = (
    "n = int(input())\nprint(n * (n - 1) // 2)",
    "print(sum(range(int(input()))))",
    "for _ in range(10**6): pass\nprint(sum(range(int(input()))))",
    "import time\ntime.sleep(0.2)\nprint(sum(range(int(input()))))",
)


def memory(gradings: int = 10_000, warm_up: int = _WARM_UP) -> dict[str, Any]:
    """Resident megabytes of this process after a warm-up and at their most from then on."""
    before, others = set(os.listdir(tempfile.gettempdir())), containers_left()
    asked = faults.jobs(gradings + warm_up, seed=1, quick=True)
    wrong = 0
    with Sandbox() as box:
        verdicts = box.grade((problem, code) for problem, code, _ in asked)
        sizes: list[float] = []
        begin = time.perf_counter()
        for number, (verdict, (_, _, due)) in enumerate(zip(verdicts, asked, strict=True), 1):
            wrong += verdict.status != due
            if number == warm_up:
                begin = time.perf_counter()
            if number >= warm_up and (number - warm_up) % 100 == 0:
                sizes.append(resident_mb())
        seconds = time.perf_counter() - begin
    left = containers_left() - others
    files = sorted(set(os.listdir(tempfile.gettempdir())) - before)
    growth = max(sizes) - sizes[0]
    return {
        "gradings": gradings,
        "wrong": wrong,
        "gradings_per_s": round(gradings / seconds, 1),
        "resident_mb": {"after_warm_up": sizes[0], "most": max(sizes), "at_the_end": sizes[-1]},
        "containers_left": left,
        "files_left": files,
        "ok": growth < FLAT_MB and wrong == 0 and left == 0 and not any("dreamprm" in name for name in files),
    }


def load(programs: int = 1000) -> dict[str, Any]:
    """Honest programs with a limit of half a second each, while two busy processes a core compete with them."""
    cores = os.cpu_count() or 1
    with busy(2 * cores), Sandbox() as box:
        begin = time.perf_counter()
        asked = ((_SUM, f"{_HONEST[i % len(_HONEST)]}\n# {i}") for i in range(programs))
        found = Counter(verdict.status for verdict in box.grade(asked))
        seconds = time.perf_counter() - begin
    return {
        "programs": programs,
        "busy_processes": 2 * cores,
        "verdicts": dict(found),
        "seconds": round(seconds, 1),
        "ok": found == Counter(PASS=programs),
    }


def starts(pools: int = 50) -> dict[str, Any]:
    """So many pools started at the same moment, each grading one program."""
    together, others = threading.Barrier(pools), containers_left()
    seconds: list[float] = []
    problems: list[str] = []

    def work() -> None:
        try:
            together.wait(_START_BUDGET_S)
            begin = time.perf_counter()
            with Sandbox(workers=1) as box:
                status = box.run(_SUM, _HONEST[0]).status
            seconds.append(time.perf_counter() - begin)
            if status != "PASS":
                problems.append(status)
        except Exception as error:  # reported with the others
            problems.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, daemon=True) for _ in range(pools)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, begin + _START_BUDGET_S - time.perf_counter()))
    left = containers_left() - others
    return {
        "pools": pools,
        "finished": len(seconds),
        "problems": problems,
        "seconds_all": round(time.perf_counter() - begin, 1),
        "seconds_slowest": round(max(seconds, default=0.0), 1),
        "containers_left": left,
        "ok": len(seconds) == pools and not problems and left == 0,
    }


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Processes that do nothing but use a processor."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def containers_left() -> int:
    """Containers of this process that the engine knows; it may have had some before."""
    client = docker.connect()
    ours = [found for found in docker.containers(client) if found["Labels"].get(docker.OWNER) == str(os.getpid())]
    client.close()
    return len(ours)


def resident_mb() -> float:
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return round(int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20, 1)


# section: (what it does, its full size)
SECTIONS: dict[str, tuple[Callable[[int], dict[str, Any]], int]] = {
    "memory": (memory, 10_000), "load": (load, 1000), "starts": (starts, 50), "faults": (faults.measure, 500),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="which (all)")
    parser.add_argument("--scale", type=float, default=1.0, help="a smaller trial, 0.1 for a tenth; is not kept")
    arguments = parser.parse_args()
    kept = RESULTS / "soak.json"
    results: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    ok = True
    for name in arguments.sections or SECTIONS:
        section, size = SECTIONS[name]
        where = machine()
        begin = time.perf_counter()
        figures = section(max(1, int(size * arguments.scale)))
        ok = ok and figures["ok"]
        row: dict[str, Any] = {"figures": figures, "machine": where, "date": time.strftime("%Y-%m-%d")}
        row["seconds"] = round(time.perf_counter() - begin, 1)
        print(json.dumps({name: row}, indent=1), flush=True)
        if arguments.scale == 1.0:
            results[name] = row
            kept.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
