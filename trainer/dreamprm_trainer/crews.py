"""What the crews do: run programs in sandboxes, and write programs with policies, on the nodes of a Ray cluster.

Every node needs this package at this version. A node says itself what it has: `ray start --resources '{"docker": 4}'`
offers four containers of its Docker engine; graphics cards are counted by Ray.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

from dreamprm_cli import __version__
from dreamprm_cli.errors import ClusterUnavailable, ConfigError, DreamPRMError, ProblemError, SandboxUnavailable
from dreamprm_cli.types import Problem, Verdict
from dreamprm_sandbox import Sandbox
from dreamprm_sandbox.formats import Mode
from dreamprm_sandbox.submission import Program
from dreamprm_trainer.cluster import Crew
from dreamprm_trainer.continuation import Beginning, Continuer, Written, spread

DOCKER = "docker"  # the resource that nodes with an engine offer, a container each
_AHEAD = 16  # programs that wait for each container: one slow program does not hold up the others


class _SandboxActor:
    """One container on a node with an engine."""

    def __init__(self, version: str, options: dict[str, Any]) -> None:
        self._version, self._options = version, options
        self._box: Sandbox | None = None
        self._problems: dict[Any, Problem] = {}

    def open(self) -> DreamPRMError | None:
        try:
            _same(self._version)
            self._box = Sandbox(1, **self._options).__enter__()
        except DreamPRMError as error:
            return error
        return None

    def do(
        self, problem: list[Any], code: Program, mode: Mode | None
    ) -> tuple[Verdict | ProblemError, int] | DreamPRMError:
        """The verdict and how many inputs were left out. problem: a reference in a list, so that it is read once."""
        import ray

        assert self._box is not None
        if problem[0] not in self._problems:
            self._problems[problem[0]] = ray.get(problem[0])
        known = self._problems[problem[0]]
        try:
            (verdict,) = self._box.each([(known, code)], mode)
        except DreamPRMError as error:
            return error
        return verdict, self._box.left_out.get(known.id, 0)

    def close(self) -> None:
        if self._box is not None:
            self._box.close()


class SandboxCrew:
    """As a Sandbox: `run`, `each`, `left_out`; the containers are on the nodes that offer `docker`.

    workers: containers, by default all that are offered. options: of every Sandbox. Raises SandboxUnavailable where no
    node offers any.
    """

    def __init__(self, ray: Any, workers: int | None = None, **options: Any) -> None:
        offered = int(ray.cluster_resources().get(DOCKER, 0))
        if offered < 1:
            raise SandboxUnavailable(
                "no node of the cluster offers containers",
                "start those that have Docker with: ray start --address ... --resources '{\"docker\": 4}'",
            )
        remote = ray.remote(num_cpus=0, resources={DOCKER: 1})(_SandboxActor)
        self._ray = ray
        self._crew = Crew(ray, lambda _: remote.remote(__version__, options), min(workers or offered, offered))
        self._references: dict[str, tuple[Problem, Any]] = {}
        self.left_out: dict[str, int] = {}

    @property
    def width(self) -> int:
        return self._crew.width

    def run(self, problem: Problem, code: Program) -> Verdict:
        """Raises ProblemError for tests that cannot be run, SandboxUnavailable when no container is left."""
        verdict = self._judge(self._reference(problem), problem.id, code, None)
        if isinstance(verdict, ProblemError):
            raise verdict
        return verdict

    def each(
        self, jobs: Iterable[tuple[Problem, Program]], mode: Mode | None = None
    ) -> Iterator[Verdict | ProblemError]:
        """In the order of the jobs, which are taken as needed; a ProblemError stands for verdicts that cannot be."""
        pool = ThreadPoolExecutor(self.width, thread_name_prefix="crew")
        waiting: deque[Future[Verdict | ProblemError]] = deque()
        try:
            for problem, code in jobs:
                waiting.append(pool.submit(self._judge, self._reference(problem), problem.id, code, mode))
                while waiting and (waiting[0].done() or len(waiting) >= _AHEAD * self.width):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _judge(self, reference: Any, task_id: str, code: Program, mode: Mode | None) -> Verdict | ProblemError:
        verdict: Verdict | ProblemError
        verdict, left_out = self._crew.call([reference], code, mode)
        if left_out:
            self.left_out[task_id] = left_out
        return verdict

    def _reference(self, problem: Problem) -> Any:
        """Tests can be large: they travel to a node once."""
        known = self._references.get(problem.id)
        if known is None or known[0] is not problem:
            known = self._references[problem.id] = problem, self._ray.put(problem)
        return known[1]

    def close(self) -> None:
        self._crew.close()

    def __enter__(self) -> SandboxCrew:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class _PolicyActor:
    """One policy: on a graphics card or the processor of its node, or a remote endpoint."""

    def __init__(self, version: str, opening: Callable[[], Any]) -> None:
        self._version, self._opening = version, opening
        self._writer: Any = None

    def open(self) -> DreamPRMError | None:
        try:
            _same(self._version)
            self._writer = self._opening()
        except DreamPRMError as error:
            return error
        return None

    def do(self, beginning: Beginning) -> list[Written] | DreamPRMError:
        try:
            return list(self._writer.write(beginning))
        except DreamPRMError as error:
            return error

    def close(self) -> None:
        self._writer.close()


class PolicyCrew:
    """A Continuer over policies on the nodes. A beginning goes to one of them whole, and what is written depends on the
    beginning alone: the programs are those that the same policy writes here.

    openings: each opens a `Streamed` on a node; they are dealt out to `size` actors in turn. threads: beginnings that
    one actor takes at once. needs: what Ray is to set aside for each (`num_gpus`, `num_cpus`).
    """

    def __init__(
        self, ray: Any, model: str, openings: Sequence[Callable[[], Any]], size: int, threads: int = 1, **needs: float
    ) -> None:
        self.model = model
        remote = ray.remote(max_concurrency=threads, scheduling_strategy="SPREAD", **needs)(_PolicyActor)
        self._crew = Crew(
            ray, lambda number: remote.remote(__version__, openings[number % len(openings)]), size, max(2, threads)
        )

    def run(self, beginnings: Callable[[], Beginning | None]) -> Iterator[Written]:
        return spread(self._write, self._crew.width, beginnings)

    def _write(self, beginning: Beginning) -> list[Written]:
        tests = replace(beginning.problem.tests, payload={})  # a policy has no use for them, and they can be large
        slim = replace(beginning, problem=replace(beginning.problem, tests=tests))
        written: list[Written] = self._crew.call(slim)
        return written

    def close(self) -> None:
        self._crew.close()


def policy_crew(ray: Any, model: str, base_urls: Sequence[str] = (), size: int | None = None) -> Continuer:
    """One policy a graphics card where the cluster has any, else one a node; with `base_urls`, one an endpoint."""
    from dreamprm_trainer.continuation import calls_at_once, open_continuer

    opening = partial(open_continuer, model, "stream")
    threads = calls_at_once(model)
    if base_urls or model.startswith(("openai:", "vllm+openai:")):
        openings = [partial(opening, base_url=url) for url in base_urls] or [opening]
        return PolicyCrew(ray, model, openings, size or len(openings), threads, num_cpus=0)
    cards = int(ray.cluster_resources().get("GPU", 0))
    if cards:
        return PolicyCrew(ray, model, [opening], min(size or cards, cards), threads, num_gpus=1, num_cpus=0)
    nodes = sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes())
    if not nodes:
        raise ClusterUnavailable("no node of the cluster has a processor or a graphics card", "see `ray status`")
    return PolicyCrew(ray, model, [opening], size or nodes, threads, num_cpus=1)


def _same(version: str) -> None:
    if version != __version__:
        raise ConfigError(f"a node of the cluster has dreamprm {__version__}, not {version}", "install one everywhere")
