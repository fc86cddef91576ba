"""Problems -> Chain-of-Function programs of a policy, as ungraded pool rows:
`{task_id, model, sample, solution, seed, finish_reason, tokens, mean_logprob}`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

from dreamprm_cli.policy import Sampling
from dreamprm_cli.types import Problem
from dreamprm_trainer.continuation import Beginning, Continuer
from dreamprm_trainer.problems import Row


def own_seed(sampling: Sampling, text: str) -> Sampling:
    """Every problem (or prefix) draws with a seed of its own, so no two share their random numbers."""
    return replace(sampling, seed=sampling.seed ^ zlib.crc32(text.encode(errors="surrogatepass")))


def draw(
    problems: Iterable[Problem], continuer: Continuer, n: int, sampling: Sampling, done: set[tuple[str, int]]
) -> Iterator[Row]:
    """Pool rows of all candidates (problem, 0..n-1) that are not in `done`, as they are finished; problems are
    taken when there is room for them."""
    missing = ((problem, tuple(i for i in range(n) if (problem.id, i) not in done)) for problem in problems)
    beginnings = (
        Beginning(problem.id, problem, indices, own_seed(sampling, problem.id))
        for problem, indices in missing
        if indices
    )
    for made in continuer.run(lambda: next(beginnings, None)):
        mean = made.logprob / made.tokens if made.tokens else math.nan
        yield {
            "task_id": made.key,
            "model": continuer.model,
            "sample": made.index,
            "solution": made.code,
            "seed": made.seed,
            "finish_reason": made.finish_reason,
            "tokens": made.tokens,
            "mean_logprob": None if math.isnan(mean) else round(mean, 5),
        }
