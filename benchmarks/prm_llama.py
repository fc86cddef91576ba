"""The PRM on llama.cpp against the PRM in torch, with the shipped checkpoint: how far rewards differ on real programs,
and how fast either is.

Programs: those of the recorded run in docs/, and the 0.5B's own for MBPP+ problems from the trainer's data (their
problems are told by the function's name alone). Speed: candidates of one problem as in `benchmarks.prm`, fewer of them,
in seconds of processor time on one thread each, as the machine need not be idle for that.
"""

from __future__ import annotations

import gzip
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.prm import _function, _problem
from benchmarks.timing import pair
from dreamprm_cli.prm.compare import Difference, compare
from dreamprm_cli.steps import split
from dreamprm_cli.types import Problem, Step

PRM = "small"
PROBLEMS, SAMPLES = 6, 4
CANDIDATES, FUNCTIONS = 2, 4
_ROOT = Path(__file__).parents[1]


def _real() -> Iterator[tuple[Problem, list[list[Step]]]]:
    """Problems with programs in steps."""
    run = json.loads((_ROOT / "docs/runs/merge_intervals/result.json").read_text(encoding="utf-8"))
    statement = (_ROOT / "examples/merge_intervals.md").read_text(encoding="utf-8")
    yield Problem("merge_intervals", statement), [split(one["code"]) for one in run["candidates"]]
    programs: dict[str, list[list[Step]]] = defaultdict(list)
    with gzip.open(_ROOT / "trainer/data/mbpp-dev-0.5b.jsonl.gz", "rt", encoding="utf-8") as rows:
        for row in map(json.loads, rows):
            steps = split(row["solution"])
            if len(programs[row["task_id"]]) < SAMPLES and any(step.scored for step in steps):
                programs[row["task_id"]].append(steps)
    whole = ((name, steps) for name, steps in programs.items() if len(steps) == SAMPLES)
    for name, steps in islice(whole, PROBLEMS):
        asked = [step.name for step in steps[0] if step.scored][-1]
        yield Problem(name, f"Write the function `{asked}`."), steps


def _together(found: list[Difference]) -> dict[str, float]:
    """The greatest of the greatest, the mean over steps, the ranks over problems with more than one step."""
    steps = sum(one.steps for one in found)
    return {
        "problems": len(found),
        "steps": steps,
        "incremental": max(one.incremental for one in found),
        "greatest": max(one.greatest for one in found),
        "mean": math.fsum(one.mean * one.steps for one in found) / steps,
        "ranks": math.fsum(one.ranks * one.steps for one in found) / steps,
    }


def measure(repeats: int = 3) -> dict[str, Any]:
    """Differences of rewards from torch in fp32, of llama.cpp and of torch in bf16; seconds for the same programs."""
    import torch

    from dreamprm_cli.prm.open import open_llama, open_packed

    fp32 = open_packed(PRM, device="cpu", dtype="fp32")
    bf16 = open_packed(PRM, device="cpu", dtype="bf16")
    llama = open_llama(PRM, threads=1)
    torch.set_num_threads(1)
    real = list(_real())
    differences = {
        name: _together([compare(fp32, other, problem, programs) for problem, programs in real])
        for name, other in (("llama", llama), ("bf16", bf16))
    }
    print(json.dumps(differences), flush=True)
    problem = _problem(fp32.tokens)
    programs = [[_function(fp32.tokens, c, f) for f in range(FUNCTIONS)] for c in range(CANDIDATES)]
    steps = [(c, step) for c, steps in enumerate(programs) for step in steps]
    tokens = 0

    def score(scorer: Any) -> float:
        nonlocal tokens
        begin = time.process_time()
        session = scorer.start(problem)
        session.append(steps)
        tokens = session.encoded_tokens
        return time.process_time() - begin

    for scorer in (fp32, bf16, llama):
        score(scorer)  # warm up
    return {
        "prm": PRM,
        "differences_from_fp32": differences,
        "merge_intervals": asdict(compare(fp32, llama, *real[0])),
        "tokens": tokens,
        "threads": 1,
        "fp32_against_llama": pair(lambda: score(fp32), lambda: score(llama), repeats),
        "bf16_against_llama": pair(lambda: score(bf16), lambda: score(llama), repeats),
    }
