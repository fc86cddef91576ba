"""Counts of the server, as Prometheus's text format has them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

from dreamprm_cli.prm.wire import ScoreAnswer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_HELP = {
    "requests_total": ("counter", "Requests answered, by path and status."),
    "request_seconds": ("histogram", "From a scoring request's arrival to its answer."),
    "batches_total": ("counter", "Batches scored."),
    "batched_requests_total": ("counter", "Requests scored; divided by batches, how many share one."),
    "steps_total": ("counter", "Rewards given."),
    "encoded_tokens_total": ("counter", "Tokens that went through the backbone."),
    "reused_tokens_total": ("counter", "Tokens that were found in the cache instead."),
    "cached_tokens": ("gauge", "Tokens whose keys and values are kept."),
    "waiting_requests": ("gauge", "Requests in the queue."),
}


class Metrics:
    """Counters, for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._counts: Counter[str] = Counter()
        self._buckets = [0] * (len(_BUCKETS_S) + 1)
        self._seconds = 0.0

    def answered(self, path: str, status: int) -> None:
        with self._lock:
            self._requests[path, status] += 1

    def took(self, seconds: float) -> None:
        """A scoring request was answered with its rewards."""
        with self._lock:
            self._buckets[sum(seconds > edge for edge in _BUCKETS_S)] += 1
            self._seconds += seconds

    def scored(self, answers: Sequence[ScoreAnswer]) -> None:
        """A batch was scored."""
        with self._lock:
            self._counts["batches_total"] += 1
            self._counts["batched_requests_total"] += len(answers)
            self._counts["steps_total"] += sum(len(row) for answer in answers for row in answer.rewards)
            self._counts["encoded_tokens_total"] += sum(answer.encoded_tokens for answer in answers)

    def text(self, *, cached_tokens: int, reused_tokens: int, waiting: int) -> str:
        with self._lock:
            requests, counts = sorted(self._requests.items()), dict(self._counts)
            buckets, seconds = list(self._buckets), self._seconds
        edges = [*(f"{edge:g}" for edge in _BUCKETS_S), "+Inf"]
        samples: dict[str, list[str]] = {
            "requests_total": [f'{{path="{path}",status="{status}"}} {n}' for (path, status), n in requests],
            "request_seconds": [
                *(f'_bucket{{le="{edge}"}} {sum(buckets[: i + 1])}' for i, edge in enumerate(edges)),
                f"_sum {seconds:.6f}",
                f"_count {sum(buckets)}",
            ],
            "reused_tokens_total": [f" {reused_tokens}"],
            "cached_tokens": [f" {cached_tokens}"],
            "waiting_requests": [f" {waiting}"],
        }
        lines = []
        for name, (kind, about) in _HELP.items():
            lines += [f"# HELP dreamprm_{name} {about}", f"# TYPE dreamprm_{name} {kind}"]
            lines += [f"dreamprm_{name}{rest}" for rest in samples.get(name, [f" {counts.get(name, 0)}"])]
        return "\n".join(lines) + "\n"
