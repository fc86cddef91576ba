"""The judge: runs the user's pytest suite in a container that no candidate ever enters.

Where the tests import the program they get stand-ins (`remote`); with `local` the program itself is imported, and the
verdict is only as good as the program is honest. pytest's own account is taken, test by test. Runs in containers.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import random
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dreamprm_sandbox import codec, guard, load, remote, runner

ROOT = "/tmp/tests"
_ARGUMENTS = (
    f"{ROOT} --rootdir={ROOT} -c /dev/null -q --capture=sys --tb=line --strict-markers -p no:cacheprovider "
    "-p no:unraisableexception -p no:faulthandler -p no:doctest -p no:junitxml -p no:pastebin"
)


class Absent(type):
    """Stands for anything of a program that is not there: what the suite is collected with."""

    def __new__(cls, name: str, bases: tuple[type, ...] = (), space: Mapping[str, Any] | None = None) -> Any:
        return super().__new__(cls, name, bases or (Exception,), dict(space or {}))

    def __init__(cls, name: str, bases: tuple[type, ...] = (), space: Mapping[str, Any] | None = None) -> None:
        super().__init__(name, bases or (Exception,), dict(space or {}))

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise remote.NotCarried(f"the tests call {cls.__name__!r} of the program while they are collected")

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(name)

    def __iter__(cls) -> Iterator[Any]:
        raise remote.NotCarried(f"the tests go through {cls.__name__!r} of the program while they are collected")


class Stands(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports of the program's modules, answered with stand-ins."""

    def __init__(self, names: Sequence[str], wanted: Sequence[str], peer: guard.Judge | None) -> None:
        self._names, self._wanted, self._peer = frozenset(names), list(wanted), peer

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname in self._names or any(name.startswith(f"{fullname}.") for name in self._names):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        if spec.name not in self._names:
            return None
        handle = None if self._peer is None else self._peer.module(spec.name)
        return Stand(spec.name, handle, self._wanted)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class Stand(types.ModuleType):
    """A module of the program. What is set on it is set over there."""

    def __init__(self, name: str, handle: Any, wanted: list[str]) -> None:
        super().__init__(name)
        self.__dict__.update(_handle=handle, _wanted=wanted)

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return [one for one in self._wanted if self._handle is None or hasattr(self._handle, one)]
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(name) if self._handle is None else getattr(self._handle, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system sets its own names, and submodules; monkeypatch sets those of the program.
        if self._handle is None or name.startswith("__") or isinstance(value, Stand):
            self.__dict__[name] = value
        else:
            setattr(self._handle, name, value)

    def __delattr__(self, name: str) -> None:
        if self._handle is None or name in self.__dict__:
            del self.__dict__[name]
        else:
            delattr(self._handle, name)


class Recorder:
    """pytest's account of a run: what it collected, and what became of each test."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.outcomes: dict[str, str] = {}
        self.phases: dict[str, set[str]] = {}
        self.details: dict[str, str] = {}
        self.passed = 0

    def pytest_collection_finish(self, session: Any) -> None:
        self.ids = [item.nodeid for item in session.items]

    def pytest_collectreport(self, report: Any) -> None:
        if not report.passed:
            self.details.setdefault(report.nodeid or "collection", _told(report))

    def pytest_runtest_logreport(self, report: Any) -> None:
        name = report.nodeid
        outcome = "xfailed" if hasattr(report, "wasxfail") else str(report.outcome)
        if outcome != "passed":
            self.outcomes[name] = outcome
            self.details.setdefault(name, _told(report))
        self.phases.setdefault(name, set()).add(report.when)
        if self.phases[name] == {"setup", "call", "teardown"} and name not in self.outcomes:
            self.outcomes[name] = "passed"
            self.passed += 1


def _told(report: Any) -> str:
    """The line that says why."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return (str(crash.message).splitlines() or [""])[0][:500]
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return (str(text).strip().splitlines() or [""])[-1][:500]


def main(
    files: dict[str, bytes], names: list[str], wanted: list[str], collect: bool, fail_fast: bool, local: Any = None
) -> dict[str, Any]:
    """Run (or with `collect` only collect, without any program) the suite.

    names: the modules that stand for the program. wanted: what a star import of them gives. local: `(sources, data)`
    to run the program in this process. Returns `{"ids", "outcomes", "details", "trouble", "broken"}`.
    """
    pipe: Any = runner._pipe
    recorder = Recorder()
    for path, content in files.items():
        place = os.path.join(ROOT, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(content)
    for name in [*names, "solution"]:
        sys.modules.pop(name, None)
    os.chdir(ROOT)
    sys.path.insert(0, ROOT)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    guard.TEST_MODULES.update(path.removesuffix(".py").replace("/", ".").partition(".")[0] for path in files)
    guard.TEST_MODULES.update(path.removesuffix(".py").rpartition("/")[2] for path in files)
    random.seed(0)

    def send(message: Any) -> None:
        try:
            data = codec.encode((recorder.passed, message))
        except codec.TooLarge:
            raise remote.NotCarried("a value of the tests is too large or nested too deeply") from None
        pipe.send(b"V", data)

    peer = None if collect or local is not None else guard.Judge(send, pipe.receive_one)
    if local is not None:
        load.install(*local)
    else:
        sys.meta_path.insert(0, Stands(names, wanted, peer))
    import pytest

    arguments = _ARGUMENTS.split()
    arguments += ["--collect-only"] if collect else []
    arguments += ["--maxfail=1"] if fail_fast and not collect else []
    arguments += [] if any(path.rpartition("/")[2] == "conftest.py" for path in files) else ["--noconftest"]
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    code = pytest.main(arguments, plugins=[recorder])
    return {
        "ids": recorder.ids,
        "outcomes": recorder.outcomes,
        "details": {name: text.encode("utf-8", "replace").decode() for name, text in recorder.details.items()},
        "trouble": peer.trouble if peer is not None else "",
        "broken": peer.broken if peer is not None else "",
        "code": int(code),
    }
