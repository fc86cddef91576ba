"""The bounded queue before the one thread that scores."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from concurrent.futures import Future

from dreamprm_cli.prm.wire import ScoreAnswer, ScoreRequest
from dreamprm_cli.serve.engine import Engine, Job
from dreamprm_cli.serve.metrics import Metrics


class Busy(Exception):
    """The queue is full; `retry_after_s` is about when it will not be."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the queue is full: try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Stopping(Exception):
    """The server takes no more requests."""


class Service:
    """Scores requests in batches: all that waits when the engine is free, up to its `batch_tokens`.

    queue: how many requests may wait.
    """

    def __init__(self, engine: Engine, metrics: Metrics, queue: int = 64) -> None:
        self.engine = engine
        self._metrics = metrics
        self._limit = queue
        self._waiting: deque[tuple[Job, Future[ScoreAnswer]]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._pace_s = 1.0  # seconds a request lately took
        self._thread = threading.Thread(target=self._run, name="scoring", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, request: ScoreRequest) -> Future[ScoreAnswer]:
        """Raises Busy, Stopping or TooLarge."""
        if len(self._waiting) >= self._limit:  # before any work is done for it
            raise Busy(self._patience_s())
        job = self.engine.prepare(request)
        answer: Future[ScoreAnswer] = Future()
        with self._changed:
            if self._stopping:
                raise Stopping("the server is stopping")
            if len(self._waiting) >= self._limit:
                raise Busy(self._patience_s())
            self._waiting.append((job, answer))
            self._changed.notify()
        return answer

    def close(self) -> None:
        """Take no more requests, score those that wait, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _patience_s(self) -> int:
        return max(1, min(60, math.ceil(self._pace_s * len(self._waiting) / 2)))

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            begin = time.monotonic()
            self._score(batch)
            self._pace_s = 0.7 * self._pace_s + 0.3 * (time.monotonic() - begin) / max(1, len(batch))

    def _next_batch(self) -> list[tuple[Job, Future[ScoreAnswer]]] | None:
        """Wait for requests and take those that go together; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if not self._waiting:
                return None
            batch: list[tuple[Job, Future[ScoreAnswer]]] = []
            room = self.engine.batch_tokens
            while self._waiting and (not batch or self._waiting[0][0].tokens <= room):
                job, answer = self._waiting.popleft()
                if answer.set_running_or_notify_cancel():  # else nobody waits for it any more
                    batch.append((job, answer))
                    room -= job.tokens
            return batch

    def _score(self, batch: list[tuple[Job, Future[ScoreAnswer]]]) -> None:
        if not batch:
            return
        try:
            answers = self.engine.score([job for job, _ in batch])
        except Exception as error:
            if len(batch) > 1:  # whose fault it was is seen alone
                for one in batch:
                    self._score([one])
            else:
                batch[0][1].set_exception(error)
            return
        self._metrics.scored(answers)
        for (_, future), answer in zip(batch, answers, strict=True):
            future.set_result(answer)
