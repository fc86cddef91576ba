"""A crew whose workers fail in every way, on a real Ray of this machine."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from scripted_crew import Fails

from dreamprm_cli.errors import ClusterUnavailable, PolicyError

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'dreamprm[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

from dreamprm_trainer.cluster import Crew, connected  # noqa: E402


@pytest.fixture(scope="module")
def connection():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        with connected("local") as found:
            yield found


@pytest.fixture
def crew(connection):
    """Makes crews of workers that fail in the given ways, and sends them home."""
    made = []

    def make(*ways):
        remote = connection.remote(num_cpus=0)(Fails)
        made.append(Crew(connection, lambda number: remote.remote(ways[number]), len(ways)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_calls_go_to_those_who_can_work(crew):
    mixed = crew(None, "open", "this")
    with ThreadPoolExecutor(mixed.width) as pool:
        found = list(pool.map(mixed.call, ["this"] * 12))
    assert {what for what, _ in found} == {"this"}
    assert len({worker for _, worker in found}) == 1  # the one whose way is not to fail


def test_another_takes_the_place_of_one_that_is_lost_between_calls(crew):
    one = crew(None)
    what, worker = one.call("this")
    os.kill(worker, 9)
    what, successor = one.call("this")
    assert what == "this"
    assert successor != worker


def test_a_call_that_takes_workers_down_is_an_error_and_the_crew_works_on(crew):
    pair = crew(None, None)
    with pytest.raises(ClusterUnavailable, match="5 workers in a row were lost over one call"):
        pair.call("die")
    assert pair.call("this")[0] == "this"


def test_a_mistake_in_the_code_is_not_tried_again(crew):
    one = crew(None)
    _, worker = one.call("this")
    with pytest.raises(ZeroDivisionError):
        one.call("bug")
    assert one.call("this") == ("this", worker)


def test_why_nobody_can_work_is_told(crew):
    with pytest.raises(PolicyError, match="cannot open"):
        crew("open", "open").call("this")
    with pytest.raises(PolicyError, match="no this"):
        crew("this", "this").call("this")
    with pytest.raises(ClusterUnavailable, match="lost before they are ready"):
        crew("lost").call("this")


def test_nobody_waits_for_a_crew_that_went_home(crew):
    one = crew(None)
    one.call("this")
    one.close()
    one.close()
    began = time.monotonic()
    with pytest.raises(ClusterUnavailable, match="sent home"):
        one.call("this")
    assert time.monotonic() - began < 5


@pytest.mark.docker
def test_the_command_starts_a_cluster_of_its_own_and_ends_it(tmp_path):
    tests = [{"stdin": "2\n", "stdout": "4\n"}]
    (tmp_path / "p.jsonl").write_text(json.dumps({"task_id": "double", "tests": tests}) + "\n")
    rows = [{"task_id": "double", "solution": f"print({n} * int(input()))"} for n in (2, 3)]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "dreamprm_cli", "grade", "p.jsonl", "s.jsonl", "--jsonl"]
    command += ["--engine", "ray", "--address", "local"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["PASS", "WA"]
