"""Where a repository's tests run: an image with its dependencies, and a copy of its files at a commit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from dreamprm_cli.errors import ProblemError
from dreamprm_sandbox import docker
from dreamprm_sandbox.derive import Derived, derive
from dreamprm_sandbox.limits import Limits
from dreamprm_sandbox.workshop import LIMITS, Checkout, Workshop
from dreamprm_trainer.mine import layout
from dreamprm_trainer.mine.repository import Damaged, Repository
from dreamprm_trainer.mine.requirements import Wanted, sandbox_table, tells, wanted

_VERSION = 1  # of what is run and how; another one means that what was kept is of no use
_MOST_MB = 256
_MOST_FILES = 20_000
TEST_LIMIT_S = 30.0
SUITE_LIMIT_S = 1200.0


@dataclass(frozen=True, slots=True)
class Environment:
    """`key` names all that decides what a run of the tests says."""

    checkout: Checkout
    wanted: Wanted
    derived: Derived
    limits: Limits
    test_s: float
    suite_s: float
    key: str

    def engine(self) -> docker.Engine:
        return docker.Engine(self.limits, image_id=self.derived.image)

    def workshop(self, engine: docker.Engine) -> Workshop:
        return Workshop(engine, self.checkout)


def contents(repository: Repository) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the commit's files. What cannot be read is left out: a source among it is named by the
    mining itself."""
    for file in repository.files:
        with suppress(Damaged):
            yield file.path, repository.read(file)


def _held(repository: Repository, files: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    """The files a container gets. Raises ProblemError for more than it may hold."""
    found: dict[str, bytes] = {}
    size = 0
    for path, data in files:
        size += len(data)
        if size > _MOST_MB << 20 or len(found) >= _MOST_FILES:
            raise ProblemError(
                f"{repository.path}: more than {_MOST_MB} MB or {_MOST_FILES} files to take into the sandbox",
                "go on without its tests: --no-tests when mining, --no-sandbox when solving",
            )
        found[path] = data
    return found


def settings(repository: Repository) -> dict[str, Any]:
    """The table [sandbox] of dreamprm.toml, of the work tree if there is one there, else of the commit."""
    name = "dreamprm.toml"
    if repository.folder is not None and (own := repository.folder / name).is_file() and not own.is_symlink():
        return sandbox_table(own.read_text(encoding="utf-8", errors="replace"), str(own))
    for file in repository.files:
        if file.path == name:
            try:
                return sandbox_table(repository.read(file).decode("utf-8", "replace"), name)
            except Damaged as error:
                raise ProblemError(f"{repository.path}: its dreamprm.toml is {error}") from None
    return {}


def prepare(
    repository: Repository,
    say: Callable[[str], None] = lambda line: None,
    files: Iterable[tuple[str, bytes]] | None = None,
) -> Environment:
    """Read what is wanted and build the image. files: what a container gets (the commit's files).

    Raises SandboxUnavailable, ProblemError, ConfigError."""
    table = settings(repository)
    held = _held(repository, contents(repository) if files is None else files)
    needs = wanted({path: data for path, data in held.items() if tells(path)}, table)
    derived = derive(docker.connect(), needs.requirements, needs.pins, say)
    tests = [
        path for path, data in held.items() if layout.is_python(path) and layout.is_test(path) and layout.tests_in(data)
    ]
    checkout = Checkout(held, layout.roots(held), tests, layout.options(held))
    memory_mb = int(table.get("memory_mb", LIMITS.memory_mb))
    test_s = float(table.get("test_time_limit_s", TEST_LIMIT_S))
    suite_s = float(table.get("suite_time_limit_s", SUITE_LIMIT_S))
    limits = replace(LIMITS, memory_mb=memory_mb, time_limit_s=max(LIMITS.time_limit_s, 3 * suite_s))
    decides = [_VERSION, repository.sha if files is None else _digest(held), derived.image, memory_mb, test_s, suite_s]
    digest = hashlib.sha256(json.dumps(decides).encode())
    return Environment(checkout, needs, derived, limits, test_s, suite_s, digest.hexdigest()[:24])


def _digest(files: Mapping[str, bytes]) -> str:
    """Of all names and contents."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest())
        digest.update(hashlib.sha256(files[path]).digest())
    return digest.hexdigest()


def told(environment: Environment) -> Mapping[str, Any]:
    """What a report says of it."""
    return {
        "image": environment.derived.image.removeprefix("sha256:")[:12],
        "requirements": list(environment.wanted.requirements),
        "pins": list(environment.wanted.pins),
        "not_installed": [
            {"name": name, "why": why} for name, why in (*environment.wanted.left_out, *environment.derived.left_out)
        ],
        "roots": list(environment.checkout.roots),
        "options": list(environment.checkout.options),
    }
