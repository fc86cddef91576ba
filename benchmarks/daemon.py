"""A Docker daemon of one's own, which may be killed: its containers, images and containerd are no one else's."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import SandboxUnavailable
from dreamprm_sandbox import docker, image

_NO_NETWORK = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")
_START_S, _STOP_S = 60.0, 5.0


class PrivateDaemon:
    """Running while entered, with the sandbox's image copied from the engine at hand. Needs root and `dockerd`."""

    def __init__(self) -> None:
        if os.geteuid() != 0 or shutil.which("dockerd") is None:
            raise SandboxUnavailable("a daemon of one's own needs root and dockerd")
        self._folder = Path(tempfile.mkdtemp(prefix="dreamprm-daemon-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"unix://{self._folder}/socket"

    def __enter__(self) -> PrivateDaemon:
        try:
            self.start()
            theirs, ours = docker.connect(), self.connect()
            with tempfile.TemporaryFile() as archive:
                for part in theirs.images.get(image.ensure(theirs)).save():
                    archive.write(part)
                archive.seek(0)
                ours.images.load(archive)
            ours.close()
            theirs.close()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> Any:
        with self.chosen():
            return docker.connect()

    @contextlib.contextmanager
    def chosen(self) -> Iterator[None]:
        """Engines that are connected to meanwhile are this one."""
        before = os.environ.get("DOCKER_HOST")
        os.environ["DOCKER_HOST"] = self.address
        try:
            yield
        finally:
            if before is None:
                del os.environ["DOCKER_HOST"]
            else:
                os.environ["DOCKER_HOST"] = before

    def start(self) -> None:
        """Start it, and return when it answers."""
        place = [f"--{name}={self._folder / name}" for name in ("data-root", "exec-root", "pidfile")]
        for stale in ("pidfile", "exec-root/containerd/containerd.pid"):  # of processes that may not be reaped yet
            (self._folder / stale).unlink(missing_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["dockerd", *_NO_NETWORK, *place, "-H", self.address],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(SandboxUnavailable):
                self.connect().close()
                return
            time.sleep(0.1)
        raise SandboxUnavailable("a second daemon does not start", self._last_words())

    def kill(self) -> None:
        """SIGKILL. Containers stay, without an engine, until it is started again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Stop it with all its containers, and remove its folder."""
        if self._process is not None:
            if self._process.poll() is not None:
                with contextlib.suppress(SandboxUnavailable):
                    self.start()  # only the daemon ends its containers and containerd in order
            with contextlib.suppress(SandboxUnavailable):
                client = self.connect()
                for container in docker.containers(client):
                    docker.remove(client, docker.name_of(container))
                client.close()
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=_STOP_S)
            self.kill()
        for _ in range(50):  # mounts go a little later; those of a daemon that was killed stay
            subprocess.run(["umount", self._folder / "data-root"], stderr=subprocess.DEVNULL, check=False)
            shutil.rmtree(self._folder, ignore_errors=True)
            if not self._folder.exists():
                return
            time.sleep(0.1)

    def _last_words(self) -> str:
        lines = (self._folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1][:300] if lines else ""
