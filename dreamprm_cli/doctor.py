"""What this machine has of what dreamprm uses, and how to get the rest. Nothing heavy is imported, nothing fetched."""

from __future__ import annotations

import dataclasses
import http.client
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dreamprm_cli.config import Settings, load_settings
from dreamprm_cli.errors import ConfigError
from dreamprm_cli.models import cache_dir, status

State = Literal["ok", "warn", "missing"]

_MEMORY_WANTED = 5e9  # the default policy and PRM with their caches
_ENGINE_TIMEOUT_S = 2.0
_SERVER_TIMEOUT_S = 3.0
# package, what it is for, how to install it
_EXTRAS = (
    ("llama_cpp", "local policies (gguf:)", "pip install 'dreamprm[local]'"),
    ("torch", "the PRM", "pip install 'dreamprm[prm]' (for a CPU only, install a CPU build of torch first)"),
    ("transformers", "the PRM and hf: policies", "pip install 'dreamprm[prm]'"),
    ("docker", "running tests in the sandbox", "pip install 'dreamprm[sandbox]'"),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One line: `missing` stops something from working, `warn` may; `fix` says what to do, empty when ok."""

    name: str
    state: State
    detail: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        return dataclasses.asdict(self)


def checks() -> list[Check]:
    """All checks, in the order to read them. Takes a few seconds at most; never raises."""
    settings, complaint = _settings()
    return [
        python_check(),
        complaint,
        cpu_check(_read("/proc/cpuinfo")),
        gpu_check(),
        memory_check(_read("/proc/meminfo"), _read("/sys/fs/cgroup/memory.max")),
        disk_check(cache_dir()),
        *(extra_check(*extra) for extra in _EXTRAS),
        *model_checks(settings.policy),
        prm_check(settings.prm),
        engine_check(os.environ),
        remote_check(settings.policy, settings.base_url, os.environ),
        terminal_check(),
    ]


def _settings() -> tuple[Settings, Check]:
    try:
        settings = load_settings()
    except ConfigError as error:
        return Settings(), Check("settings", "missing", error.message, error.hint or "correct it")
    places = sorted(set(settings.origin.values()))
    return settings, Check("settings", "ok", f"from {', '.join(places)}" if places else "defaults")


def python_check() -> Check:
    virtual = " in a virtual environment" if sys.prefix != sys.base_prefix else ""
    detail = f"{platform.python_implementation()} {platform.python_version()}{virtual} ({sys.executable})"
    return Check("Python", "ok", detail)


def cpu_check(cpuinfo: str) -> Check:
    """From the text of /proc/cpuinfo (empty on systems without one)."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    seen: list[str] = [name for name in ("avx2", "avx512_bf16", "avx512f", "bf16", "i8mm", "sve") if name in flags]
    seen += ["amx"] if any(flag.startswith("amx_") for flag in flags) else []
    model = fields.get("model name") or platform.machine()
    detail = f"{model}, {os.cpu_count()} logical cores; {', '.join(seen) or 'no known vector features'}"
    if not flags:
        return Check("CPU", "ok", f"{model}, {os.cpu_count()} logical cores; features unknown")
    if "flags" in fields and "avx2" not in flags:
        return Check("CPU", "warn", detail, "no AVX2: local models will be slow; use a remote policy (openai:NAME)")
    if not flags & {"avx512_bf16", "bf16"} and "amx" not in seen:
        return Check("CPU", "ok", f"{detail}; no bf16, so the PRM computes in fp32")
    return Check("CPU", "ok", detail)


def gpu_check() -> Check:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Check("GPU", "missing", "no NVIDIA GPU found; the CPU does the work", "optional")
    try:
        query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("GPU", "warn", f"nvidia-smi does not answer ({type(error).__name__})", "check the driver")
    names = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not names:
        said = (done.stdout + done.stderr).strip().splitlines()
        return Check("GPU", "warn", said[0] if said else "nvidia-smi lists none", "check the driver")
    detail = "; ".join(names)
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Check("GPU", "warn", f"{detail}; hidden by CUDA_VISIBLE_DEVICES", "unset CUDA_VISIBLE_DEVICES")
    if "+cpu" in (_version("torch") or ""):
        return Check("GPU", "warn", f"{detail}; the installed torch is a CPU build", "install a CUDA build of torch")
    return Check("GPU", "ok", detail)


def memory_check(meminfo: str, cgroup_limit: str) -> Check:
    """From the texts of /proc/meminfo and the cgroup's memory.max (either may be empty)."""
    sizes = {}
    for line in meminfo.splitlines():
        key, _, value = line.partition(":")
        number = value.split()
        if number and number[0].isdigit():
            sizes[key] = int(number[0]) * 1024
    if "MemTotal" not in sizes:
        return Check("memory", "ok", "unknown on this system")
    total, free = sizes["MemTotal"], sizes.get("MemAvailable", sizes["MemTotal"])
    if cgroup_limit.strip().isdigit():
        total, free = min(total, int(cgroup_limit)), min(free, int(cgroup_limit))
    detail = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB available"
    if free < _MEMORY_WANTED:
        fix = "close other programs, use --prm small, --policy qwen2.5-coder-0.5b or a remote policy (openai:NAME)"
        return Check("memory", "warn", f"{detail}; the default models want {_MEMORY_WANTED / 1e9:.0f} GB", fix)
    return Check("memory", "ok", detail)


def disk_check(folder: Path) -> Check:
    """Room in the model cache for what is not fetched yet; wheels need it twice while they are joined."""
    there = next((parent for parent in (folder, *folder.parents) if parent.is_dir()), folder)
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Check("model cache", "missing", f"{folder}: {error.strerror}", "set DREAMPRM_CACHE to another folder")
    wanted = max((2 * (row.info.bytes or 0) for row in status() if row.state in ("missing", "partial")), default=0)
    detail = f"{folder}, {free / 1e9:.1f} GB free"
    if not os.access(there, os.W_OK):
        return Check("model cache", "warn", f"{detail}, not writable", "set DREAMPRM_CACHE to another folder")
    if free < wanted:
        fix = "free some space, or set DREAMPRM_CACHE to a folder on a larger disk"
        return Check("model cache", "warn", f"{detail}; fetching a model may take {wanted / 1e9:.1f} GB", fix)
    return Check("model cache", "ok", detail)


def extra_check(package: str, purpose: str, fix: str) -> Check:
    if importlib.util.find_spec(package) is None:
        return Check(package, "missing", f"not installed; needed for {purpose}", fix)
    return Check(package, "ok", f"{_version(package) or 'installed'}, for {purpose}")


def model_checks(policy: str) -> list[Check]:
    """The registry's files, and the model of the policy in the settings."""
    rows = []
    for row in status():
        name, size = row.info.name, (row.info.bytes or 0) / 1e9
        if row.info.file is None and name != policy:
            continue
        fix = f"dreamprm models pull {name}"
        if row.state == "ready":
            rows.append(Check(name, "ok", str(row.path)))
        elif row.state == "unverified":
            rows.append(Check(name, "ok", f"{row.path}; its SHA-256 is checked when it is first used"))
        elif row.state == "partial":
            rows.append(
                Check(name, "missing", f"{row.bytes_here / 1e9:.1f} of {size:.1f} GB fetched", f"{fix} goes on")
            )
        else:
            rows.append(Check(name, "missing", f"not fetched ({size:.1f} GB)" if size else "not fetched", fix))
    kind, _, target = policy.partition(":")
    if kind == "gguf" and not Path(target).expanduser().is_file():
        rows.append(Check(policy, "missing", "no such file", "correct the path in the policy setting"))
    return rows


def _server_check(prm: str) -> Check:
    """Whether a scoring server answers at all. It is sent no token."""
    from dreamprm_cli.errors import ScorerError
    from dreamprm_cli.prm.client import Client

    vllm = prm.startswith("vllm+")
    try:
        client = Client(prm.removeprefix("vllm+").partition("#")[0], timeout_s=_SERVER_TIMEOUT_S)
        client.get("/version" if vllm else "/health")
    except ScorerError as error:
        return Check("PRM", "missing", error.message, error.hint)
    return Check("PRM", "ok", f"{'vLLM' if vllm else 'a server'} answers at {client.shown}")


def prm_check(prm: str) -> Check:
    """The checkpoint in the settings: one in the package, or a folder."""
    if prm == "none":
        return Check("PRM", "warn", "switched off (prm is none): programs are not scored", "unset prm")
    if "://" in prm:
        return _server_check(prm)
    folders = (Path(prm).expanduser(), Path(__file__).parent / "prm" / "checkpoints" / prm)
    found = next((path for folder in folders for path in sorted(folder.glob("*.safetensors"))), None)
    if found is None:
        where = "in this installation" if prm == "default" else f"in {prm}"
        return Check("PRM", "missing", f"no checkpoint {where}", "reinstall dreamprm, or name a checkpoint with --prm")
    return Check("PRM", "ok", str(found.parent))


def engine_check(environ: Mapping[str, str]) -> Check:
    """Whether a Docker engine (or podman's socket) answers a ping within two seconds."""
    address = _without_user(environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    name = "Docker engine"
    if environ.get("DOCKER_TLS_VERIFY") or not address.startswith(("unix://", "tcp://", "http://")):
        return Check(
            name, "warn", f"{address}: not checked (only plain unix and tcp addresses are)", "run `docker info`"
        )
    try:
        answer = _ping(address)
    except PermissionError:
        return Check(
            name, "missing", f"{address}: permission denied", "add yourself to the group docker, or use podman"
        )
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Check(name, "missing", f"{address}: {_reason(error)}", _engine_fix(environ))
    if answer != 200:
        return Check(name, "missing", f"{address} answers HTTP {answer}", _engine_fix(environ))
    return Check(name, "ok", address)


def _ping(address: str) -> int:
    """HTTP status of `GET /_ping`."""
    if address.startswith("unix://"):
        connection = http.client.HTTPConnection("localhost", timeout=_ENGINE_TIMEOUT_S)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(_ENGINE_TIMEOUT_S)
    else:
        connection = http.client.HTTPConnection(address.split("://", 1)[1].rstrip("/"), timeout=_ENGINE_TIMEOUT_S)
    try:
        if connection.sock is not None:
            connection.sock.connect(address.removeprefix("unix://"))
        connection.request("GET", "/_ping")
        return connection.getresponse().status
    finally:
        connection.close()


def _engine_fix(environ: Mapping[str, str]) -> str:
    runtime = environ.get("XDG_RUNTIME_DIR")
    for sock in ("docker.sock", "podman/podman.sock"):
        if runtime and (Path(runtime) / sock).exists() and not environ.get("DOCKER_HOST"):
            return f"export DOCKER_HOST=unix://{runtime}/{sock}"
    if shutil.which("dockerd") or shutil.which("docker"):
        return "start it (`systemctl start docker`, or `dockerd`), or point DOCKER_HOST to one"
    return "install Docker or podman; it is needed to run tests, not to write and score programs"


def remote_check(policy: str, base_url: str | None, environ: Mapping[str, str]) -> Check:
    """Key and address of openai: policies; the key itself is not shown."""
    url = base_url or environ.get("OPENAI_BASE_URL")
    key = environ.get("OPENAI_API_KEY")
    if not key and not url:
        needed = policy.startswith(("openai:", "vllm+openai:"))
        fix = "export OPENAI_API_KEY=..., or OPENAI_BASE_URL of your own server" + ("" if needed else " (optional)")
        return Check("remote policy", "missing", "no OPENAI_API_KEY, no OPENAI_BASE_URL", fix)
    return Check(
        "remote policy", "ok", f"{_without_user(url or 'the default address')}, {'with' if key else 'without'} a key"
    )


def terminal_check(stream: Any = None) -> Check:
    stream = stream or sys.stdout
    columns = shutil.get_terminal_size().columns
    encoding = (getattr(stream, "encoding", None) or "unknown").lower()
    if os.environ.get("NO_COLOR"):
        colour = "no colour (NO_COLOR)"
    elif os.environ.get("TERM") == "dumb":
        colour = "no colour (TERM=dumb)"
    else:
        colour = "true colour" if os.environ.get("COLORTERM") in ("truecolor", "24bit") else "colour"
    if not stream.isatty():
        colour = "colour forced" if os.environ.get("FORCE_COLOR") else "not a terminal, so plain lines"
    detail = f"{columns} columns, {encoding}, {colour}"
    if "utf" not in encoding:
        return Check("terminal", "warn", f"{detail}; ASCII glyphs are used", "use a UTF-8 locale (LANG=C.UTF-8)")
    if columns < 80:
        return Check("terminal", "warn", detail, "widen it to 80 columns to see all functions")
    return Check("terminal", "ok", detail)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _version(package: str) -> str | None:
    """Of an import package, without importing it."""
    try:
        return importlib.metadata.version({"llama_cpp": "llama-cpp-python"}.get(package, package))
    except importlib.metadata.PackageNotFoundError:
        return None


def _without_user(url: str) -> str:
    """Some URLs carry a name and password."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
