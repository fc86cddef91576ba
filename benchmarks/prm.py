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
from dreamprm_cli.solve import PENDING
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


def measure(
    repeats: int = 5,
    prefix_repeats: int = 5,
    prefix_candidates: int = 4,
    candidates: int = CANDIDATES,
    functions: int = FUNCTIONS,
) -> dict[str, Any]:
    """Best times of each side. The per-prefix side takes a minute or two a reading: `prefix_repeats` of them.

    Live scoring is read twice over: every function in a forward of its own as it is finished, and with PENDING of
    them waiting, as they do when candidates are written side by side.
    """
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
    programs = [[_function(scorer.tokens, c, f) for f in range(functions)] for c in range(candidates)]
    problem_ids = scorer.tokens.problem(prm_input(problem), 10_000)[0]
    counts = {"shared": 0, "live": 0, "per_prefix": 0}

    def shared() -> float:
        begin = time.perf_counter()
        session = scorer.start(problem)
        session.append_features([(c, step) for c, steps in enumerate(programs) for step in steps])
        counts["shared"] = session.encoded_tokens
        return time.perf_counter() - begin

    finished = [(c, programs[c][f]) for f in range(functions) for c in range(candidates)]

    def live(pending: int) -> float:
        begin = time.perf_counter()
        session = scorer.start(problem)
        for at in range(0, len(finished), pending):
            session.append_features(finished[at : at + pending])
        counts["live"] = max(counts["live"], session.encoded_tokens)
        return time.perf_counter() - begin

    model: Any = AutoModelForCausalLM.from_pretrained(source.folder, dtype=backbone.dtype)
    model.to(backbone.device).eval()

    @torch.inference_mode()
    def per_prefix() -> float:
        begin, total = time.perf_counter(), 0
        for steps in programs[:prefix_candidates]:
            ids = list(problem_ids)
            for step in steps:
                ids += scorer.tokens.step(step.source).ids
                model(torch.tensor([ids], device=backbone.device))
                total += len(ids)
        scale = candidates / prefix_candidates  # its forwards share nothing: cost is linear in the candidates
        counts["per_prefix"] = round(total * scale)
        return (time.perf_counter() - begin) * scale

    shared()  # warm up
    against_prefix = pair(per_prefix, shared, prefix_repeats)
    one_by_one = pair(lambda: live(1), shared, max(1, repeats // 2))
    some_at_once = pair(lambda: live(PENDING), shared, repeats)
    return {
        "backbone": BACKBONE,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "device": str(backbone.device),
        "candidates": candidates,
        "functions": functions,
        "tokens": {**counts, "ratio": round(counts["per_prefix"] / counts["shared"], 2)},
        "encoded_twice": counts["live"] - counts["shared"],
        "per_prefix_against_shared": {
            **against_prefix,
            "repeats": prefix_repeats,
            "measured_candidates": prefix_candidates,
        },
        "live_against_offline": {**some_at_once, "repeats": repeats, "pending": PENDING},
        "live_one_by_one_against_offline": {**one_by_one, "repeats": max(1, repeats // 2), "pending": 1},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--prefix-repeats", type=int, default=5)
    parser.add_argument("--prefix-candidates", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=CANDIDATES)
    parser.add_argument("--functions", type=int, default=FUNCTIONS)
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))
