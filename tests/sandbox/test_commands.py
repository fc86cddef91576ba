"""`dreamprm sandbox build|status|clean` against the real engine."""

import subprocess
import sys

import pytest

from dreamprm_cli.errors import SandboxUnavailable
from dreamprm_sandbox import Limits, commands, docker


@pytest.mark.docker
def test_status_proves_the_limits_and_leaves_nothing():
    found = commands.status()
    assert found["ready"], found["problem"]
    assert found["image"].startswith("sha256:")
    assert found["runtimes"]
    assert found["cgroups"] in ("v1", "v2")


@pytest.mark.docker
def test_an_image_that_is_there_is_not_built_again():
    assert commands.build(pytest.fail) == {"image": commands.status(prove=False)["image"], "built": False}


@pytest.mark.docker
def test_clean_removes_what_the_dead_left(monkeypatch):
    with subprocess.Popen([sys.executable, "-c", "pass"]) as dead:
        dead.wait()
    engine = docker.Engine(Limits())
    labels = docker._owner() | {docker.OWNER: str(dead.pid), f"{docker.OWNER}_start": "1"}
    monkeypatch.setattr(docker, "_owner", lambda: labels)
    orphan = engine._create()
    try:
        assert commands.status(prove=False)["orphans"] >= 1
        assert commands.clean()["containers"] >= 1
        assert orphan not in map(docker.name_of, docker.containers(engine.client))
    finally:
        engine.close()


@pytest.mark.parametrize("command", [commands.status, commands.clean, lambda: commands.build(print)])
def test_no_engine_is_a_clear_error(monkeypatch, tmp_path, command):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    with pytest.raises(SandboxUnavailable, match="no container engine answers at unix://") as error:
        command()
    assert "sandbox/engine.sh" in error.value.hint


@pytest.mark.docker
def test_status_is_of_the_runtime_that_is_asked_for(monkeypatch):
    monkeypatch.setenv("DREAMPRM_SANDBOX_RUNTIME", "no-such-runtime")
    report = commands.status()
    assert not report["ready"]
    assert "no-such-runtime" in report["problem"]
