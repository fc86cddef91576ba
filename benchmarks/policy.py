"""N candidates in one batch, prompt decoded once, against N completions one after the other on the same engine.

Both sides sample the same seeds from the same prompt; the sequential side decodes the prompt for each, as a plain
completion call does. What is compared is seconds a sampled token, since batches round differently and a few
programs come out of another length.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.timing import pair
from dreamprm_cli.policy import Sampling
from dreamprm_cli.policy.llama_cpp import LlamaCppPolicy
from dreamprm_cli.policy.open import open_policy
from dreamprm_cli.prompts import Prompt, cof_prompt
from dreamprm_cli.types import Problem

_PROBLEM = Problem(
    id="merge_intervals",
    statement="Read n and then n lines `l r`; merge overlapping or touching intervals; print the number of merged "
    "intervals and the total length covered.",
)


def _complete(policy: LlamaCppPolicy, prompt: Prompt, calls: Sequence[Sequence[int]], sampling: Sampling) -> float:
    """Seconds a token of stream calls for these indices, each starting without a prompt in memory."""
    sampled = policy.tokens_sampled
    begin = time.perf_counter()
    for indices in calls:
        policy.forget()
        for _ in policy.stream(prompt, indices, sampling):
            pass
    return (time.perf_counter() - begin) / (policy.tokens_sampled - sampled)


def measure(
    repeats: int = 5, model: str = "qwen2.5-coder-0.5b", n: int = 16, max_tokens: int = 192, threads: int | None = None
) -> dict[str, Any]:
    """`first` is sequential, `second` batched, both in seconds a token; `ratio` is batched over sequential tokens/s."""
    policy = open_policy(model, slots=n, threads=threads)
    if not isinstance(policy, LlamaCppPolicy):
        raise SystemExit(f"{model} is not a GGUF model")
    prompt = cof_prompt(_PROBLEM)
    sampling = Sampling(max_tokens=max_tokens)
    decoded: dict[str, list[int]] = {"sequential": [], "batched": []}

    def run(side: str, calls: Sequence[Sequence[int]]) -> float:
        before = policy.prompt_tokens_decoded
        seconds = _complete(policy, prompt, calls, sampling)
        decoded[side].append(policy.prompt_tokens_decoded - before)
        return seconds

    run("batched", [range(n)])  # opens the context, reads the weights
    (prompt_tokens,) = decoded["batched"]
    figures = pair(
        lambda: run("sequential", [[index] for index in range(n)]), lambda: run("batched", [range(n)]), repeats
    )
    policy.close()
    return {
        "model": model,
        "n": n,
        "max_tokens": max_tokens,
        "prompt_tokens": prompt_tokens,
        "prompts_decoded": {side: max(counts) / prompt_tokens for side, counts in decoded.items()},
        "tokens_per_s": {
            "sequential": 1 / figures["first_s"]["best"],
            "batched": 1 / figures["second_s"]["best"],
        },
        **figures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", default="qwen2.5-coder-0.5b")
    parser.add_argument("-n", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=192)
    parser.add_argument("--threads", type=int)
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
