"""A PRM on another machine: `dreamprm serve` there, the same Scorer here.

Every call sends all that its answer depends on (see `prm.wire`): a server that was restarted, or that forgot, answers
the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from dreamprm_cli.prm.client import TOKEN_VARIABLE, Client, own_token
from dreamprm_cli.prm.wire import ScoreRequest, parse_answer
from dreamprm_cli.prompts import PRM_TEMPLATE_VERSION
from dreamprm_cli.steps import SPLITTER_VERSION
from dreamprm_cli.types import Problem, Step

_SAME = "use the same version of dreamprm on both sides"


class RemoteScorer:
    """A Scorer over `dreamprm serve` at `url`. Raises ScorerError when something else answers there, or nothing.

    token: default the user's own.
    """

    device = "remote"

    def __init__(self, url: str, token: str | None = None) -> None:
        self.client = Client(url, token or own_token())
        self.name = self.client.shown
        about = self.client.get("/health")
        if "prm" not in about:
            if about.get("status") in ("ok", "stopping"):
                raise self.client.error("it wants a token", f"set {TOKEN_VARIABLE} to the server's token")
            raise self.client.error("that is no `dreamprm serve`", "vLLM's address is written vllm+http://HOST:PORT")
        for what, ours in (("template_version", PRM_TEMPLATE_VERSION), ("splitter_version", SPLITTER_VERSION)):
            if about.get(what) != ours:
                raise self.client.error(f"its {what} is {about.get(what)}, ours is {ours}", _SAME)
        self.forms: tuple[str, ...] = tuple(map(str, about.get("forms") or ()))
        self.logprob_weight = float(about.get("logprob_weight") or 0.0)

    def start(self, problem: Problem) -> RemoteSession:
        """Have the problem encoded there."""
        return RemoteSession(self.client, problem)


class RemoteSession:
    """A ScoringSession: all steps of a call are scored by one request."""

    def __init__(self, client: Client, problem: Problem) -> None:
        self._client = client
        self._problem = problem
        self._past: dict[int, tuple[Step, ...]] = {}  # steps that are scored, by candidate
        self.truncated = False
        self.encoded_tokens = 0
        self._ask({})

    def append(self, steps: Sequence[tuple[int, Step]]) -> list[float]:
        """Rewards of (candidate, next step) pairs, in order; NaN for steps that are not scored."""
        new: dict[int, tuple[Step, ...]] = {}
        for candidate, step in steps:
            new[candidate] = (*new.get(candidate, ()), step)
        rows = {candidate: iter(row) for candidate, row in zip(new, self._ask(new), strict=True)}
        for candidate, added in new.items():
            self._past[candidate] = (*self._past.get(candidate, ()), *added)
        return [next(rows[candidate]) for candidate, _ in steps]

    def drop(self, candidate: int) -> None:
        """The server forgets by itself."""
        self._past.pop(candidate, None)

    def _ask(self, new: dict[int, tuple[Step, ...]]) -> tuple[tuple[float, ...], ...]:
        past = [self._past.get(candidate, ()) for candidate in new]
        programs = tuple((*old, *added) for old, added in zip(past, new.values(), strict=True))
        request = ScoreRequest(self._problem, programs, tuple(map(len, past)), keep=True)
        value = self._client.post("/score", request.to_json())
        try:
            answer = parse_answer(value, [len(added) for added in new.values()])
        except (KeyError, TypeError, ValueError) as error:
            raise self._client.error(f"a malformed answer ({error})", _SAME) from None
        self.truncated = answer.truncated
        self.encoded_tokens += answer.encoded_tokens
        return answer.rewards
