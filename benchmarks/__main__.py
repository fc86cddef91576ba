"""`python -m benchmarks [NAME ...]`: measure, print JSON, keep it in benchmarks/results/ with the machine it ran on."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

NAMES = (
    "startup",
    "steps",
    "policy",
    "prm",
    "prm-llama",
    "solve",
    "sandbox",
    "correct",
    "ray",
    "serve",
    "mine",
    "own-repos",
    "own-here",
)
_HOURS = ("own-repos", "own-here")  # measured where they are asked for
RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "bf16": "avx512_bf16" in flags,
        "python": platform.python_version(),
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="which figures (all)")
    parser.add_argument("--repeats", type=int, help="readings of each side (each figure's own default, mostly five)")
    parser.add_argument(
        "--data",
        type=Path,
        help="a folder: of EvalPlus's files for sandbox, of packages and trainings for own-repos, own-here",
    )
    arguments = parser.parse_args()
    names = arguments.names or [name for name in NAMES if name not in _HOURS]
    given = {"repeats": arguments.repeats, "data": arguments.data}
    RESULTS.mkdir(exist_ok=True)
    for name in names:
        where = machine()
        begin = time.perf_counter()
        measure = importlib.import_module(f"benchmarks.{name.replace('-', '_')}").measure
        taken = inspect.signature(measure).parameters
        options = {key: value for key, value in given.items() if value is not None and key in taken}
        shown = {key: "FOLDER" if key == "data" else value for key, value in options.items()}
        figures = measure(**options)
        row = {
            "figures": figures,
            "command": " ".join(["python -m benchmarks", name, *(f"--{key} {value}" for key, value in shown.items())]),
            "machine": where,
            "date": time.strftime("%Y-%m-%d"),
            "seconds": round(time.perf_counter() - begin, 1),
        }
        text = json.dumps({name: row}, indent=1)
        (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        print(text, flush=True)


if __name__ == "__main__":
    main()
