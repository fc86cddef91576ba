"""Where the work of labelling and grading is done: on this machine, or on the nodes of a Ray cluster.

Units are the same on both: a beginning that is written on, a program that is judged. So is what comes of them, and the
files that keep it: a run may stop on one and go on with the other. `batched` alone writes many beginnings as one batch,
whose sums depend on what shares it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.types import Problem, Verdict
from dreamprm_sandbox import Limits, Sandbox
from dreamprm_trainer.continuation import Continuer, open_continuer

if TYPE_CHECKING:
    from dreamprm_trainer.crews import SandboxCrew

ENGINES = ("batched", "stream", "ray")


class Box(Protocol):
    """Runs programs; `width` calls of `run` at once keep it busy."""

    @property
    def width(self) -> int: ...

    def run(self, problem: Problem, code: str, /) -> Verdict: ...

    def __enter__(self) -> Box: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None, /
    ) -> None: ...


class Engine:
    """Opens policies and sandboxes."""

    def __init__(
        self, continuer: Callable[[str], Continuer], sandbox: Callable[[int | None, Limits | None], Box]
    ) -> None:
        self.continuer, self.sandbox = continuer, sandbox


@contextmanager
def open_engine(
    name: str, *, address: str = "auto", base_urls: Sequence[str] = (), rows: int = 96, length: int = 2048
) -> Iterator[Engine]:
    """name: one of ENGINES. rows: of the batch; length: tokens of a prompt with its program, there. base_urls: servers
    of the policy; several with `ray` alone. Raises ConfigError, ClusterUnavailable."""
    if name == "ray":
        from dreamprm_trainer import crews

        with _cluster(address) as ray:
            yield Engine(
                lambda model: crews.policy_crew(ray, model, base_urls),
                lambda workers, limits: crews.SandboxCrew(ray, workers, limits=limits),
            )
        return
    if len(base_urls) > 1 or (base_urls and name == "batched"):
        raise ConfigError(f"--engine {name} has no use for so many servers", "--engine ray spreads work over them")
    options: dict[str, Any] = {"rows": rows, "length": length} if name == "batched" else {}
    if base_urls:
        options["base_url"] = base_urls[0]
    yield Engine(
        lambda model: open_continuer(model, name, **options),
        lambda workers, limits: Sandbox(workers or 1, limits=limits),
    )


@contextmanager
def cluster_sandbox(address: str, workers: int | None = None, **options: Any) -> Iterator[SandboxCrew]:
    """A crew of containers on a cluster; options: of every Sandbox. Raises ClusterUnavailable, SandboxUnavailable."""
    from dreamprm_trainer.crews import SandboxCrew

    with _cluster(address) as ray, SandboxCrew(ray, workers, **options) as crew:
        yield crew


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """A cluster of this machine alone offers a container a processor."""
    from dreamprm_trainer.cluster import connected
    from dreamprm_trainer.crews import DOCKER

    with connected(address, {DOCKER: os.cpu_count() or 1}) as ray:
        yield ray
