"""The engine: hardened containers with a zygote in them, proof of their limits, and no orphans.

Everything that talks to Docker (or to podman's compatible socket, through DOCKER_HOST) is here.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import uuid
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import SandboxUnavailable
from dreamprm_sandbox import boot, image, proof, scratch, zygote
from dreamprm_sandbox.limits import Limits
from dreamprm_sandbox.slot import DockerStream, Fault, Slot

LABEL = "dreamprm.sandbox"
OWNER = f"{LABEL}.owner"  # the process that started a container
_START_S = 60.0
_API_TIMEOUT_S = 120
_OVERHEAD_MB = 96  # PID 1, the page tables of its children, and the files in tmpfs on top of it
_NOFILE = 256
_NPROC = 1 << 14  # of the candidates of all containers: not what limits them, but podman asks for more than it may have
_FSIZE = 64 << 20
_STACK = 64 << 20
_CAPABILITIES = ["CHOWN", "KILL", "SETGID", "SETUID"]
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "LD_BIND_NOW": "1",  # what is not bound before a fork is bound after it, by each child anew
    "GLIBC_TUNABLES": "glibc.malloc.mxfast=0",  # what consolidates its bins after a fork copies every page of them
}


def own_runtime() -> str | None:
    """The engine runtime that the user asks for, such as "runsc"; None for the engine's own choice."""
    return os.environ.get("DREAMPRM_SANDBOX_RUNTIME") or None


class Engine:
    """A connection to the engine. Thread-safe: `start` and `discard` may be called from any worker."""

    def __init__(self, limits: Limits, *, runtime: str | None = None, image_id: str | None = None) -> None:
        self.limits = limits
        self.runtime = runtime
        self.client = connect()
        self._lock = threading.Lock()
        self._containers: dict[int, str] = {}  # id(slot) -> container, by name
        self._kind = "podman" if scratch.is_podman(self.client) else "docker"
        reap(self.client)
        self.image = image_id or image.ensure(self.client)

    def start(self) -> Slot:
        """A new container whose limits are proved. Raises SandboxUnavailable, or Fault when it may be tried again."""
        import docker.errors

        try:
            container = self._create()
        except docker.errors.APIError as error:
            said = f"the engine cannot create a container: {_one_line(error)}"
            if self.runtime is not None and self.runtime in str(error):
                hint = f"does it know the runtime {self.runtime}? `dreamprm sandbox status` lists those it does"
                raise SandboxUnavailable(said, hint) from None
            raise Fault(said) from None
        except (docker.errors.DockerException, OSError) as error:
            raise Fault(f"the engine cannot create a container: {_one_line(error)}") from None
        try:
            raw = self.client.api.attach_socket(container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
            stream = DockerStream(_own_socket(raw))
            self.client.api.start(container)
        except (docker.errors.DockerException, OSError) as error:
            self._remove(container)
            raise Fault(f"the engine cannot start a container: {_one_line(error)}") from None
        slot = Slot(stream, self.limits.memory_mb)
        with self._lock:
            self._containers[id(slot)] = container
        try:
            stream.send(boot.program(self.limits.memory_mb << 20), _START_S)
            found = proof.shortcomings(json.loads(slot.hello(_START_S)), self.wanted)
        except Fault:
            self.discard(slot)
            raise
        if found:
            self.discard(slot)
            raise SandboxUnavailable(
                f"the sandbox's limits are not in force: {'; '.join(found)}",
                "nothing was run; use an engine that enforces them (rootful Docker, or control groups v2)",
            )
        return slot

    def discard(self, slot: Slot) -> None:
        """Kill and remove the container of a slot. Never raises: the reaper gets what is missed."""
        slot.stream.close()
        with self._lock:
            container = self._containers.pop(id(slot), None)
        if container is not None:
            self._remove(container)

    def close(self) -> None:
        with self._lock:
            containers = list(self._containers.values())
            self._containers.clear()
        for container in containers:
            self._remove(container)
        self.client.close()

    @property
    def isolation(self) -> str:
        return f"{self._kind} {self.runtime or 'runc'} {self.image.removeprefix('sha256:')[:12]}"

    @property
    def wanted(self) -> dict[str, int]:
        """What `proof.shortcomings` holds the container to."""
        return {
            "memory": (self.limits.memory_mb + self.limits.tmpfs_mb + _OVERHEAD_MB) << 20,
            "pids": self.limits.pids + zygote.WAITING,
            "cpu_us_per_s": 1_000_000,
            "tmpfs_bytes": self.limits.tmpfs_mb << 20,
            "tmpfs_inodes": self.limits.tmpfs_files,
            "nofile": _NOFILE,
            "fsize": _FSIZE,
        }

    def _create(self) -> str:
        """A container that is not started yet: its name."""
        from docker.types import Ulimit

        api = self.client.api
        wanted = self.wanted
        name = f"dreamprm-{uuid.uuid4().hex[:12]}"
        writable = scratch.mounts(self.client, name, _owner(), wanted["tmpfs_bytes"], wanted["tmpfs_inodes"])
        host = api.create_host_config(
            network_mode="none",
            ipc_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            cap_add=_CAPABILITIES,
            security_opt=["no-new-privileges"],
            mem_limit=wanted["memory"],
            memswap_limit=wanted["memory"],
            pids_limit=wanted["pids"],
            cpu_period=100_000,
            cpu_quota=100_000,
            ulimits=[
                Ulimit(name="nofile", soft=_NOFILE, hard=_NOFILE),
                Ulimit(name="nproc", soft=_NPROC, hard=_NPROC),
                Ulimit(name="core", soft=0, hard=0),
                Ulimit(name="fsize", soft=_FSIZE, hard=_FSIZE),
                Ulimit(name="stack", soft=8 << 20, hard=_STACK),
                Ulimit(name="memlock", soft=65536, hard=65536),
                Ulimit(name="msgqueue", soft=0, hard=0),
            ],
            log_config={"Type": "none"},
            auto_remove=True,
            init=False,
            runtime=self.runtime,
            **writable,
        )
        try:
            self._create_container(name, host)
        except BaseException:
            scratch.remove(self.client, name)
            raise
        return name

    def _create_container(self, name: str, host: Any) -> None:
        self.client.api.create_container(
            self.image,
            command=[*boot.PYTHON, boot.BOOT],
            name=name,
            environment=_ENVIRONMENT,
            labels=_owner(),
            stdin_open=True,  # with the attach below: closed when this process is gone
            stop_signal="SIGKILL",  # PID 1 heeds no other: a daemon that starts again would wait for each container
            user="0:0",
            working_dir="/tmp",
            hostname="sandbox",
            network_disabled=True,
            host_config=host,
        )

    def _remove(self, container: str) -> None:
        remove(self.client, container)


def connect() -> Any:
    """A docker-py client that answers. Raises SandboxUnavailable naming the fix."""
    try:
        import docker
        import docker.errors
    except ImportError:
        raise SandboxUnavailable("the docker package is not installed", "pip install 'dreamprm[sandbox]'") from None
    try:
        client = docker.from_env(timeout=_API_TIMEOUT_S)
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        where = os.environ.get("DOCKER_HOST", "the local socket")
        raise SandboxUnavailable(
            f"no container engine answers at {where}: {_one_line(error)}",
            "start Docker, or name podman's socket in DOCKER_HOST; as root on Debian `sandbox/engine.sh` does it",
        ) from None
    return client


def containers(client: Any) -> list[dict[str, Any]]:
    """All containers of ours that the engine knows, running or not."""
    return list(client.api.containers(all=True, filters={"label": LABEL}))


def orphaned(labels: dict[str, str]) -> bool:
    """Whether the process that started what has these labels, on this machine, is dead."""
    return labels.get(f"{LABEL}.host") == _host() and not _alive(labels)


def reap(client: Any) -> int:
    """Remove the containers whose owner is dead, and what is left of them. How many there were."""
    orphans = {name_of(container) for container in containers(client) if orphaned(container["Labels"])}
    orphans |= {name for name, labels in scratch.left(client, LABEL) if orphaned(labels)}
    for container in orphans:
        remove(client, container)
    return len(orphans)


def name_of(container: dict[str, Any]) -> str:
    """The name of one of `containers`."""
    return str(container["Names"][0]).removeprefix("/")


def remove(client: Any, container: str) -> None:
    """Kill and remove a container, by name; one that is already going or gone is fine."""
    import docker.errors

    with contextlib.suppress(docker.errors.DockerException, OSError):
        client.api.remove_container(container, force=True, v=True)
    scratch.remove(client, container)


def _owner() -> dict[str, str]:
    pid = os.getpid()
    return {LABEL: "1", f"{LABEL}.host": _host(), OWNER: str(pid), f"{LABEL}.owner_start": _start_of(pid)}


def _alive(labels: dict[str, str]) -> bool:
    owner = labels.get(OWNER, "")
    return owner.isdigit() and _start_of(int(owner)) == labels.get(f"{LABEL}.owner_start")


def _start_of(pid: int) -> str:
    """When the process started, in clock ticks since boot: a reused pid has another. Empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _host() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _own_socket(raw: Any) -> socket.socket:
    """The attach socket itself, out of docker-py's wrappers."""
    inner = getattr(raw, "_sock", raw)
    return inner if isinstance(inner, socket.socket) else inner.socket


def _one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
