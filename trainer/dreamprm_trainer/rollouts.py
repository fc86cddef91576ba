"""Monte-Carlo counts of prefixes: how often the programs that a policy goes on to write from a prefix pass.

Label of prefix k = passes / rollouts (DreamPRM-Code, arXiv 2512.15000, section 3.2; Math-Shepherd, arXiv 2312.08935).
The paper rolls out K = 16 always; `Plan` stops early where the first rollouts agree. Rollouts are drawn and judged at
the same time: while verdicts are out, the engine goes on with other prefixes.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import IO, Protocol

from dreamprm_cli.policy import Sampling
from dreamprm_cli.types import Problem
from dreamprm_trainer.continuation import Beginning, Continuer, Written
from dreamprm_trainer.journal import append
from dreamprm_trainer.problems import Row
from dreamprm_trainer.sample import own_seed


@dataclass(frozen=True, slots=True)
class Plan:
    """How many rollouts a prefix gets: `first`, enough if they agree; else `more` at a time, until the standard
    deviation of the Beta posterior is below `spread` or there are `most`. first = most is a fixed K."""

    first: int = 4
    more: int = 2
    most: int = 16
    spread: float = 0.08

    def enough(self, passed: Sequence[bool]) -> int:
        """How many rollouts suffice, or are to be drawn before that is decided, given those known so far, in order.

        It depends on the outcomes in their order alone, so a run that was stopped half-way decides the same.
        """
        count = self.first
        while count <= len(passed) and not self.stops(sum(passed[:count]), count):
            count = min(count + self.more, self.most)
        return count

    def stops(self, passes: int, rollouts: int) -> bool:
        """Whether so many passes of so many rollouts are enough; between two looks they never are."""
        if rollouts >= self.most:
            return True
        if rollouts < self.first or (rollouts - self.first) % self.more:
            return False
        return passes in (0, rollouts) or posterior_sd(passes, rollouts) < self.spread


def posterior_sd(passes: int, rollouts: int) -> float:
    """Standard deviation of Beta(passes + 1, rollouts - passes + 1)."""
    a, b = passes + 1, rollouts - passes + 1
    return math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))


@dataclass(frozen=True, slots=True)
class Prefix:
    """Steps 1..k of a program. Programs of a problem that begin alike have that prefix, and its rollouts, in common."""

    problem: Problem
    text: str

    @property
    def key(self) -> str:
        return hashlib.sha256(f"{self.problem.id}\0{self.text}".encode(errors="surrogatepass")).hexdigest()[:24]


class Asks(Protocol):
    """`Judge.ask`."""

    def ask(self, task_id: str, code: str) -> Future[Row]: ...


@dataclass(slots=True)
class Tally:
    """What is known of a prefix. asked: indices given to the engine; passed: by index, once judged; tokens: written
    for it in this run; unusable: its problem's tests cannot be run."""

    prefix: Prefix
    asked: set[int] = field(default_factory=set)
    passed: dict[int, bool] = field(default_factory=dict)
    tokens: int = 0
    unusable: bool = False

    @property
    def outcomes(self) -> list[bool]:
        """In the order of their indices."""
        return [self.passed[index] for index in sorted(self.passed)]


def roll_out(
    prefixes: Iterable[Prefix],
    continuer: Continuer,
    judge: Asks,
    plan: Plan,
    sampling: Sampling,
    journal: IO[bytes],
    known: Sequence[Row] = (),
) -> Iterator[Tally]:
    """The tally of each prefix, as it is finished; prefixes are taken when there is room for new ones.

    journal: rollouts are appended to it as they are written, before they are judged, so that none is drawn twice;
    known: the rows that it had. A rollout that the engine broke off is left out.
    """
    return _Run(iter(prefixes), continuer, judge, plan, sampling, journal, known).run()


class _Run:
    def __init__(
        self,
        prefixes: Iterator[Prefix],
        continuer: Continuer,
        judge: Asks,
        plan: Plan,
        sampling: Sampling,
        journal: IO[bytes],
        known: Sequence[Row],
    ) -> None:
        self.prefixes, self.continuer, self.judge = prefixes, continuer, judge
        self.plan, self.sampling, self.journal = plan, sampling, journal
        self.known: dict[str, list[Row]] = defaultdict(list)
        for row in known:
            self.known[row["prefix"]].append(row)
        self.tallies: dict[str, Tally] = {}
        self.queue: deque[Beginning] = deque()
        self.open: dict[str, int] = {}  # rollouts of a prefix that are out for drawing or judging
        self.judging: dict[Future[Row], list[tuple[str, int]]] = {}
        self.finished: deque[Tally] = deque()

    def run(self) -> Iterator[Tally]:
        while True:
            for written in self.continuer.run(self._next):
                self._written(written)
                yield from self._harvest()
            yield from self._harvest()
            if not self.judging:
                return
            # The engine ran dry: there is nothing to draw until a verdict says so.
            wait(self.judging, return_when=FIRST_COMPLETED)

    def _next(self) -> Beginning | None:
        """More of a prefix that is under way, else a new one."""
        self._settle()
        while not self.queue and (prefix := next(self.prefixes, None)) is not None:
            self._begin(prefix)
        return self.queue.popleft() if self.queue else None

    def _begin(self, prefix: Prefix) -> None:
        if prefix.key in self.tallies:
            return
        tally = self.tallies[prefix.key] = Tally(prefix)
        rows = self.known.pop(prefix.key, [])
        self.open[prefix.key] = len(rows)
        for row in rows:
            tally.asked.add(row["index"])
            self._submit(prefix.key, row["index"], row["solution"])
        if not rows:
            self._advance(prefix.key)

    def _harvest(self) -> Iterator[Tally]:
        while self.finished:
            yield self.finished.popleft()

    def _written(self, written: Written) -> None:
        tally = self.tallies[written.key]
        tally.tokens += written.tokens
        if written.finish_reason == "error":
            self._closed(written.key)
            return
        row = {"task_id": tally.prefix.problem.id, "prefix": written.key, "index": written.index}
        row |= {"model": self.continuer.model, "solution": written.code, "seed": written.seed}
        append(self.journal, row | {"finish_reason": written.finish_reason, "tokens": written.tokens})
        self._submit(written.key, written.index, written.code)

    def _submit(self, key: str, index: int, code: str) -> None:
        future = self.judge.ask(self.tallies[key].prefix.problem.id, code)
        self.judging.setdefault(future, []).append((key, index))

    def _settle(self) -> None:
        """Take in the verdicts that have come. A prefix goes on when all that was asked of it is known, so that how
        many rollouts it gets does not depend on who is quicker."""
        for future in [one for one in self.judging if one.done()]:
            row = future.result()
            for key, index in self.judging.pop(future):
                tally = self.tallies[key]
                if row["passed"] is None:
                    tally.unusable = True
                else:
                    tally.passed[index] = row["passed"]
                self._closed(key)

    def _closed(self, key: str) -> None:
        self.open[key] -= 1
        if not self.open[key]:
            self._advance(key)

    def _advance(self, key: str) -> None:
        tally = self.tallies[key]
        outcomes = tally.outcomes
        more = 0 if tally.unusable else max(0, self.plan.enough(outcomes) - len(outcomes))
        # An index is asked for once a run: what an engine breaks off is not asked for again and again.
        indices = tuple(index for index in range(self.plan.most) if index not in tally.asked)[:more]
        if not indices:
            self.finished.append(tally)
            return
        tally.asked.update(indices)
        self.open[key] += len(indices)
        prefix = tally.prefix
        self.queue.append(Beginning(key, prefix.problem, indices, own_seed(self.sampling, key), prefix.text))
