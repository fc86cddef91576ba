"""PRM scoring on the shape of the method: 16 candidates of one 600-token problem, 8 functions of 80 tokens each.

Shared problem KV and one pass per candidate, against what published code does: one forward per prefix, LM head
included. And scoring live, function by function as they are finished, against one offline batch.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from benchmarks.timing import pair
from dreamprm_cli.types import Problem, Step

CANDIDATES, FUNCTIONS = 16, 8
PROBLEM_TOKENS, FUNCTION_TOKENS = 600, 80
BACKBONE = "qwen2.5-coder-0.5b"


def _function(tokens: Any, candidate: int, number: int) -> Step:
    """A function of FUNCTION_TOKENS tokens, different for every candidate."""
    lines = [f"def part_{number}(values):", f'    """Part {number} of program {candidate}."""', "    total = 0"]
    while len(tokens.step("\n".join(lines)).ids) < FUNCTION_TOKENS - 12:
        lines.append(f"    total += values[{len(lines)}] * {candidate + 2}")
    source = "\n".join([*lines, "    return total"]) + "\n\n\n"
    return Step(f"part_{number}", "function", source, 1, source.count("\n"))


def _problem(tokens: Any) -> Problem:
    from dreamprm_cli.prompts import prm_input

    words = 0
    while True:
        words += 10
        problem = Problem(id="shape", statement=" ".join(f"word{k % 97}" for k in range(words)))
        if len(tokens.problem(prm_input(problem), 10_000)[0]) >= PROBLEM_TOKENS:
            return problem


def measure(repeats: int = 5, prefix_repeats: int = 2) -> dict[str, Any]:
    """Best times of each side. The per-prefix side takes minutes, so that pair is read `prefix_repeats` times."""
    import torch
    from transformers import AutoModelForCausalLM

    from dreamprm_cli.prm.backbone import load_backbone
    from dreamprm_cli.prm.scorer import PackedScorer
    from dreamprm_cli.prm.source import locate_backbone
    from dreamprm_cli.prompts import prm_input

    source = locate_backbone(BACKBONE)
    backbone = load_backbone(source)
    scorer = PackedScorer(backbone)
    problem = _problem(scorer.tokens)
    programs = [[_function(scorer.tokens, c, f) for f in range(FUNCTIONS)] for c in range(CANDIDATES)]
    problem_ids = scorer.tokens.problem(prm_input(problem), 10_000)[0]
    counts = {"shared": 0, "live": 0, "per_prefix": 0}

    def shared() -> float:
        begin = time.perf_counter()
        session = scorer.start(problem)
        session.append_features([(c, step) for c, steps in enumerate(programs) for step in steps])
        counts["shared"] = session.encoded_tokens
        return time.perf_counter() - begin

    def live() -> float:
        begin = time.perf_counter()
        session = scorer.start(problem)
        for f in range(FUNCTIONS):
            for c in range(CANDIDATES):
                session.append_features([(c, programs[c][f])])
        counts["live"] = session.encoded_tokens
        return time.perf_counter() - begin

    model = AutoModelForCausalLM.from_pretrained(source.folder, dtype=backbone.dtype).to(backbone.device).eval()

    @torch.inference_mode()
    def per_prefix() -> float:
        begin, total = time.perf_counter(), 0
        for steps in programs:
            ids = list(problem_ids)
            for step in steps:
                ids += scorer.tokens.step(step.source).ids
                model(torch.tensor([ids], device=backbone.device))
                total += len(ids)
        counts["per_prefix"] = total
        return time.perf_counter() - begin

    shared()  # warm up
    against_prefix = pair(per_prefix, shared, prefix_repeats)
    against_offline = pair(live, shared, repeats)
    return {
        "backbone": BACKBONE,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "device": str(backbone.device),
        "tokens": {**counts, "ratio": round(counts["per_prefix"] / counts["shared"], 2)},
        "encoded_twice": counts["live"] - counts["shared"],
        "per_prefix_against_shared": {**against_prefix, "repeats": prefix_repeats},
        "live_against_offline": {**against_offline, "repeats": repeats},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--prefix-repeats", type=int, default=2)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.repeats, arguments.prefix_repeats), indent=1))
