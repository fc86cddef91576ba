"""A repository's own test suite, run again and again in one container: a process that holds the files forks a child
for every run and puts every file back after it. Runs in containers; standard library, pytest and coverage only.

Tests and code share a process here, so a report is only as honest as the code (trust: weak). What a run leaves behind
(processes, files) is removed before the next one.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import marshal
import os
import random
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

ROOT = "/tmp/repository"
_PACKAGES = "/opt/deps"
_WRITTEN = 1_000_000_000  # when every file was written, so that one put in its place is newer
_ARGUMENTS = (
    f"--rootdir={ROOT} -o addopts= -o required_plugins= -o minversion=0 -q --tb=line --continue-on-collection-errors "
    "-p no:cacheprovider -p no:randomly -p no:random_order -p no:faulthandler"
)
_MOST_TESTS = 60  # told of a function: those that exercise the fewest others
_SHOWN = 300  # letters of a message
_BUSY = 6.0  # times as long, at most, on a machine that has no time for it


class Place:
    """The files as they are to be before every run, and what the tests among them are run with."""

    def __init__(self, files: Mapping[str, bytes], tests: Sequence[str], options: Sequence[str]) -> None:
        self.files, self.tests, self.options = files, tests, options
        for path, content in files.items():
            put(path, content, _WRITTEN)

    def restore(self) -> None:
        """End what a run has left running, and undo what it did to the files."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # all that this user may end, but for this process
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, 0):
                pass
        for place in ("/tmp", "/dev/shm"):
            for name in os.listdir(place):
                if os.path.join(place, name) != ROOT:
                    _remove(os.path.join(place, name))
        seen = set()
        for folder, folders, names in os.walk(ROOT):
            for name in folders:
                if os.path.islink(os.path.join(folder, name)):
                    _remove(os.path.join(folder, name))
            for name in names:
                place = os.path.join(folder, name)
                path = os.path.relpath(place, ROOT)
                if path in self.files:
                    seen.add(path)
                    found = os.lstat(place)
                    if int(found.st_mtime) != _WRITTEN or found.st_size != len(self.files[path]) or found.st_nlink != 1:
                        put(path, self.files[path], _WRITTEN)
                elif os.path.basename(folder) != "__pycache__":
                    _remove(place)
        for path in self.files.keys() - seen:
            put(path, self.files[path], _WRITTEN)


_place = Place({}, [], [])


def put(path: str, content: bytes, written: float) -> None:
    """A new file in the place of what is there."""
    place = os.path.join(ROOT, path)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place)
    with open(place, "wb") as file:
        file.write(content)
    os.utime(place, (written, written))


def _remove(place: str) -> None:
    if os.path.isdir(place) and not os.path.islink(place):
        shutil.rmtree(place, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(place)


def main(op: str, question: Mapping[str, Any]) -> dict[str, Any]:
    """`setup` once, then `run` as often as wanted."""
    return setup(question) if op == "setup" else run(question)


def setup(question: Mapping[str, Any]) -> dict[str, Any]:
    """Take in the repository: `{"files": {path: bytes}, "roots": [folders to import from], "tests": [paths],
    "options": [of pytest], "limit_s"}`. What `run` returns for collecting all tests."""
    global _place
    _place = Place(question["files"], question["tests"], question["options"])
    for key, value in {"USER": "user", "LOGNAME": "user", "COLUMNS": "120"}.items():
        os.environ[key] = value
    roots = [os.path.normpath(os.path.join(ROOT, root)) for root in question["roots"]]
    at = next((number for number, path in enumerate(sys.path) if path.endswith("dist-packages")), len(sys.path))
    sys.path[at:at] = [_PACKAGES]
    sys.path[:0] = roots
    os.environ["PYTHONPATH"] = os.pathsep.join([*roots, _PACKAGES])
    importlib.invalidate_caches()
    import pytest

    for name in ("_pytest.python", "_pytest.assertion.rewrite", "unittest.mock", "inspect", "decimal", "fractions"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    found = run({"collect": True, "keep_bytecode": True, "limit_s": question["limit_s"]})
    return found | {"pytest": pytest.__version__, "python": ".".join(map(str, sys.version_info[:2]))}


def run(question: Mapping[str, Any]) -> dict[str, Any]:
    """One run. Asked: `limit_s`, and perhaps `silent_s` (without a word), `files` (path -> bytes in the place of those
    there), `only` or `skip` (test ids), `tests` (paths), `collect`, `fail_fast`, `test_limit_s`, `cover` (path ->
    ranges of lines), `keep_bytecode`.

    Told: `ids`, `errors` (place -> why), `outcomes`, `details` and `seconds` by id, `ended` (done, over: the limit,
    hung: silent for too long, died: ended from within), `at` (the id it ended at), `code` and `said` of pytest, `cover`
    (path -> for each range `[ids, how many, lines]`).
    """
    files = question.get("files", {})
    for path, content in files.items():
        put(path, content, time.time())
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _child(question, write)
        finally:
            os._exit(1)
    os.close(write)
    try:
        limit_s = question["limit_s"]
        return _gathered(read, Patience(limit_s, child), Patience(question.get("silent_s", limit_s), child))
    finally:
        os.close(read)
        _place.restore()


class Patience:
    """So many seconds since it began, not counting those for which the process stood ready while others had the
    processor: a busy machine does not make a program slow. It ends at `_BUSY` times as many by the clock."""

    def __init__(
        self,
        limit_s: float,
        process: int,
        clock: Callable[[], float] = time.monotonic,
        waited_s: Callable[[int], float] | None = None,
    ) -> None:
        self._limit_s, self._process = limit_s, process
        self._clock, self._waited_s = clock, waited_s or _waited_s
        self.begin()

    def begin(self) -> None:
        """Begin anew."""
        self._began, self._before = self._clock(), self._waited_s(self._process)

    def left_s(self) -> float:
        """None are left at 0 or below."""
        spent = self._clock() - self._began
        waited = self._waited_s(self._process) - self._before
        return self._limit_s - max(spent - waited, spent / _BUSY)


def _waited_s(process: int) -> float:
    """How long the process has stood ready without a processor; 0 where the kernel does not say."""
    try:
        with open(f"/proc/{process}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _gathered(read: int, whole: Patience, silence: Patience) -> dict[str, Any]:
    """What the child told, until it ends or its time does."""
    told: dict[str, Any] = {
        "ids": [], "errors": {}, "outcomes": {}, "details": {}, "seconds": {}, "ended": "died", "at": "", "code": -1,
        "said": "", "cover": {},
    }  # fmt: skip
    for kind, value in _messages(read, whole, silence):
        if kind == "ended":
            told["ended"] = value
        elif kind == "begin":
            told["at"] = value
        elif kind == "end":
            name, outcome, detail, seconds = value
            told["outcomes"][name], told["seconds"][name], told["at"] = outcome, seconds, ""
            if detail:
                told["details"][name] = detail
        elif kind == "error":
            told["errors"].setdefault(*value)
        elif kind == "done":
            told["ended"] = "done"
            told |= value
        else:
            told[kind] = value
    return told


def _messages(read: int, whole: Patience, silence: Patience) -> Iterator[tuple[str, Any]]:
    data = bytearray()
    poller = select.poll()
    poller.register(read, select.POLLIN)
    while True:
        while len(data) >= 4 and len(data) >= 4 + int.from_bytes(data[:4], "big"):
            size = int.from_bytes(data[:4], "big")
            yield marshal.loads(bytes(data[4 : 4 + size]))
            del data[: 4 + size]
        silence.begin()
        while not poller.poll(max(0.0, min(whole.left_s(), silence.left_s())) * 1000):
            if whole.left_s() <= 0:
                yield "ended", "over"
                return
            if silence.left_s() <= 0:
                yield "ended", "hung"
                return
        part = os.read(read, 1 << 16)
        if not part:
            return
        data += part


def _child(question: Mapping[str, Any], write: int) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.dup2(write, 3)
    os.closerange(4, 256)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    said = io.StringIO()
    sys.stdout = sys.stderr = said
    os.chdir(ROOT)
    sys.dont_write_bytecode = not question.get("keep_bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    random.seed(0)
    for name in [name for name in sys.modules if name.partition(".")[0] == "dreamprm_sandbox"]:
        del sys.modules[name]  # ours; the repository may have one of that name

    def send(kind: str, value: Any) -> None:
        message = marshal.dumps((kind, value))
        message = len(message).to_bytes(4, "big") + message
        while message:
            message = message[os.write(3, message) :]

    import pytest

    tracer = _tracer() if question.get("cover") is not None else None
    _settle_hypothesis()
    arguments = [*_ARGUMENTS.split(), *_place.options]
    arguments += ["--collect-only"] if question.get("collect") else []
    arguments += ["--maxfail=1"] if question.get("fail_fast") else []
    if "tests" in question:
        arguments += [os.path.join(ROOT, path) for path in question["tests"]]
    else:  # from the top, so that a conftest.py that gives up takes no more than its own folder with it
        names = sorted({os.path.basename(path) for path in _place.tests})
        arguments += ["-o", f"python_files={' '.join(names)}", ROOT]
    try:
        code = pytest.main(arguments, plugins=[Watch(question, send, tracer)])
    except BaseException as error:  # a conftest that ends everything, for example
        send("said", f"{type(error).__name__}: {error}"[:_SHOWN])
        raise
    cover = {}
    if tracer is not None:
        tracer.stop()
        cover = _covered(tracer.get_data(), question["cover"])
    tail = [line for line in said.getvalue().splitlines() if line.strip()][-1:] if code not in (0, 1, 5) else []
    send("done", {"code": int(code), "said": "".join(tail)[:_SHOWN], "cover": cover})
    os._exit(0)


def _tracer() -> Any:
    import coverage

    tracer = coverage.Coverage(data_file=None, config_file=False, source=[ROOT], messages=False)
    tracer.set_option("run:disable_warnings", ["no-data-collected", "module-not-imported", "module-not-measured"])
    tracer.start()
    return tracer


def _settle_hypothesis() -> None:
    """The same examples in every run, where the suite leaves that open."""
    with contextlib.suppress(ImportError):
        import hypothesis

        hypothesis.settings.register_profile("settled", derandomize=True, database=None, deadline=None)
        hypothesis.settings.load_profile("settled")


def _covered(data: Any, wanted: Mapping[str, Sequence[tuple[int, int]]]) -> dict[str, list[Any]]:
    """For each function, by path, its most telling tests, how many there are, and the lines of it that they ran."""
    exercised: dict[str, list[tuple[set[str], list[int]]]] = {}
    breadth: dict[str, int] = {}
    for path, ranges in wanted.items():
        by_line = data.contexts_by_lineno(os.path.join(ROOT, path))
        rows = []
        for first, last in ranges:
            lines = {line: {one for one in by_line.get(line, ()) if one} for line in range(first, last + 1)}
            tests: set[str] = set().union(*lines.values())
            rows.append((tests, [line for line, some in lines.items() if some]))
            for test in tests:
                breadth[test] = breadth.get(test, 0) + 1
        if any(tests for tests, _ in rows):
            exercised[path] = rows
    return {
        path: [[_most_telling(tests, breadth), len(tests), lines] for tests, lines in rows]
        for path, rows in exercised.items()
    }


def _most_telling(tests: set[str], breadth: Mapping[str, int]) -> list[str]:
    """Those that exercise the fewest functions; of the many cases of one test, one after the other test's."""
    seen: dict[str, int] = {}
    places = {}
    for test in sorted(tests):
        name = test.partition("[")[0]
        places[test] = seen[name] = seen.get(name, -1) + 1
    return sorted(tests, key=lambda test: (breadth[test], places[test], test))[:_MOST_TESTS]


class Watch:
    """A plugin of pytest: what is run, for how long, and what became of it."""

    def __init__(self, question: Mapping[str, Any], send: Callable[[str, Any], None], tracer: Any) -> None:
        self._only = frozenset(question["only"]) if "only" in question else None
        self._skip = frozenset(question.get("skip", ()))
        self._limit_s = float(question.get("test_limit_s", 0.0))
        self._send, self._tracer = send, tracer
        self._outcome = self._detail = ""
        self._began = 0.0

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [
            item
            for item in items
            if (self._only is None or item.nodeid in self._only) and item.nodeid not in self._skip
        ]

    def pytest_collection_finish(self, session: Any) -> None:
        self._send("ids", [item.nodeid for item in session.items])

    def pytest_collectreport(self, report: Any) -> None:
        if not report.passed:
            self._send("error", (report.nodeid or "collection", _told(report)))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._send("begin", nodeid)
        self._outcome, self._detail, self._began = "passed", "", time.monotonic()
        if self._tracer is not None:
            self._tracer.switch_context(nodeid)
        if self._limit_s:
            signal.signal(signal.SIGALRM, _too_slow)
            signal.setitimer(signal.ITIMER_REAL, self._limit_s)

    def pytest_runtest_logreport(self, report: Any) -> None:
        outcome = "xfailed" if hasattr(report, "wasxfail") else str(report.outcome)
        if outcome != "passed" and self._outcome == "passed":
            self._outcome, self._detail = outcome, _told(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        if self._limit_s:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self._tracer is not None:
            self._tracer.switch_context("")
        seconds = round(time.monotonic() - self._began, 4)
        self._send("end", (nodeid, self._outcome, self._detail, seconds))


def _too_slow(*_: Any) -> None:
    import pytest

    raise pytest.fail.Exception("slower than the limit")


def _told(report: Any) -> str:
    """The line that says why."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else report.longrepr
    text = text[2] if isinstance(text, tuple) else text
    lines = str(text).strip().splitlines() or [""]
    return (lines[0] if crash is not None else lines[-1])[:_SHOWN].encode("utf-8", "replace").decode()
