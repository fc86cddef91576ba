"""Problems -> Chain-of-Function programs of a policy, as ungraded pool rows.

The output is append-only JSON Lines, one finished candidate a line, so a killed run goes on where it stopped and
no candidate is sampled twice:
`{task_id, model, sample, solution, seed, finish_reason, tokens, mean_logprob}`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import math
import os
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.fence import FenceExtractor
from dreamprm_cli.policy import Policy, Sampling, candidate_seed
from dreamprm_cli.prompts import Prompt, cof_prompt
from dreamprm_cli.types import FinishReason, Problem
from dreamprm_trainer.problems import Row, problem_of, read_jsonl, with_splits


@dataclass(slots=True)
class _Draft:
    text: list[str] = field(default_factory=list)
    tokens: int = 0
    logprob: float = 0.0


def _own(sampling: Sampling, problem: Problem) -> Sampling:
    """Each problem draws with a seed of its own, so no two problems share their random numbers."""
    return replace(sampling, seed=sampling.seed ^ zlib.crc32(problem.id.encode()))


def stream(
    problems: Sequence[Problem], policy: Policy, n: int, sampling: Sampling, done: set[tuple[str, int]]
) -> Iterator[Row]:
    """Pool rows of all candidates (problem, 0..n-1) that are not in `done`, as they finish, from a live policy."""
    for problem in problems:
        indices = [index for index in range(n) if (problem.id, index) not in done]
        if not indices:
            continue
        own = _own(sampling, problem)
        drafts = {index: _Draft() for index in indices}
        for delta in policy.stream(cof_prompt(problem), indices, own):
            draft = drafts[delta.candidate]
            draft.text.append(delta.text)
            draft.tokens += delta.tokens
            draft.logprob += delta.logprob
            if delta.finish_reason is not None:
                seed = candidate_seed(own.seed, delta.candidate)
                code = program("".join(draft.text), policy.prefills)
                yield _row(
                    problem.id,
                    policy.name,
                    delta.candidate,
                    code,
                    seed,
                    draft.tokens,
                    draft.logprob,
                    delta.finish_reason,
                )


def batched(
    problems: Sequence[Problem], model: str, n: int, sampling: Sampling, done: set[tuple[str, int]]
) -> Iterator[Row]:
    """The same from the batched decoder: many problems share a batch (see decoder.py), in bf16."""
    from dreamprm_trainer.decoder import Request, open_decoder

    decoder, tokenizer = open_decoder(model)
    requests = []
    for problem in problems:
        indices = tuple(index for index in range(n) if (problem.id, index) not in done)
        tokens = tuple(tokenizer.encode(_chat(cof_prompt(problem)), add_special_tokens=False).ids)
        if indices:
            requests.append(Request(problem.id, tokens, indices, _own(sampling, problem)))
    for made in decoder.run(requests):
        code = program(tokenizer.decode(list(made.tokens), skip_special_tokens=False), prefilled=True)
        tokens_drawn = len(made.tokens) + (made.finish_reason == "stop")
        yield _row(made.key, model, made.index, code, made.seed, tokens_drawn, made.logprob, made.finish_reason)


def _chat(prompt: Prompt) -> str:
    """The prompt in ChatML, up to the prefill that the model goes on from."""
    turns = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in prompt.messages)
    return f"{turns}<|im_start|>assistant\n{prompt.prefill}"


def program(text: str, prefilled: bool) -> str:
    """The program in a whole completion."""
    fence = FenceExtractor(prefilled)
    return fence.feed(text) + fence.finish()


def _row(
    task_id: str, model: str, index: int, code: str, seed: int, tokens: int, logprob: float, reason: FinishReason
) -> Row:
    mean = logprob / tokens if tokens else math.nan
    return {
        "task_id": task_id,
        "model": model,
        "sample": index,
        "solution": code,
        "seed": seed,
        "finish_reason": reason,
        "tokens": tokens,
        "mean_logprob": None if math.isnan(mean) else round(mean, 5),
    }


def open_pool(path: Path) -> tuple[IO[bytes], list[Row]]:
    """The pool, locked for this process and ready to append to, and its complete rows.

    A last line that a kill cut short is removed. Raises ConfigError when another process writes to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(f"{path} is being written by another process", "give each run an --out of its own") from None
    file.seek(0)
    content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        file.truncate(len(whole))
    return file, [json.loads(line) for line in whole.splitlines() if line.strip()]


def append(pool: IO[bytes], row: Row) -> None:
    """One line, on disk before this returns."""
    pool.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    pool.flush()
    os.fsync(pool.fileno())


def choose(
    rows: Sequence[Row],
    split: str,
    min_tests: int = 0,
    shortest: bool = False,
    limit: int | None = None,
    where: Sequence[str] = (),
) -> list[Problem]:
    """The problems of a split with at least `min_tests` tests, short statements first if asked, at most `limit`.

    where: conditions `field=value` that a row must meet, such as `difficulty=easy` or `tests.kind=stdin`.
    """
    kept = [
        problem_of(row)
        for row, own in with_splits(rows)
        if split in ("all", own)
        and row.get("tests", {}).get("n", math.inf) >= min_tests
        and all(_meets(row, condition) for condition in where)
    ]
    if shortest:
        kept.sort(key=lambda problem: len(problem.statement))
    return kept[:limit]


def _meets(row: Row, condition: str) -> bool:
    field, _, wanted = condition.partition("=")
    value: object = row
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return str(value) == wanted


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="dreamprm_trainer.sample", description=__doc__.split("\n")[0])
    parser.add_argument("--problems", type=Path, required=True, help="problem set, JSON Lines")
    parser.add_argument("--policy", required=True, help="as in `dreamprm solve --policy`")
    parser.add_argument(
        "--engine",
        default="batched",
        choices=["batched", "stream"],
        help="batched: local Qwen2.5 models, many problems at once; stream: any policy, one problem at a time",
    )
    parser.add_argument("--n", type=int, default=8, help="candidates a problem")
    parser.add_argument("--split", default="train", choices=["train", "dev", "test", "all"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="at most this many problems")
    parser.add_argument("--min-tests", type=int, default=0, help="leave out problems with fewer tests")
    parser.add_argument("--shortest", action="store_true", help="short statements first")
    parser.add_argument("--where", nargs="*", default=[], metavar="FIELD=VALUE", help="only such problems")
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    problems = choose(read_jsonl(args.problems), args.split, args.min_tests, args.shortest, args.limit, args.where)
    sampling = Sampling(temperature=args.temperature, max_tokens=args.max_tokens, seed=args.seed)
    pool, rows = open_pool(args.out)
    with pool:
        done = {(row["task_id"], row["sample"]) for row in rows if row["model"] == args.policy}
        start, new, tokens, total = time.monotonic(), 0, 0, len(problems) * args.n
        with _source(args.engine, problems, args.policy, args.n, sampling, done) as source:
            for row in source:
                append(pool, row)
                new += 1
                tokens += row["tokens"]
                if new % 16 == 0:
                    rate = tokens / (time.monotonic() - start)
                    print(f"{len(done) + new}/{total} {row['task_id']} {rate:.0f} tok/s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _source(
    engine: str, problems: Sequence[Problem], name: str, n: int, sampling: Sampling, done: set[tuple[str, int]]
) -> Iterator[Iterator[Row]]:
    if engine == "batched":
        yield batched(problems, name, n, sampling, done)
        return
    from dreamprm_cli.policy.open import open_policy

    policy = open_policy(name)
    try:
        yield ({**row, "model": name} for row in stream(problems, policy, n, sampling, done))
    finally:
        policy.close()


if __name__ == "__main__":
    main()
