"""Where a backbone's files are: a registry name, a GGUF file or a Hugging Face folder becomes one folder and digest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dreamprm_cli.errors import CheckpointError
from dreamprm_cli.models import ModelInfo, Progress, Report, cache_dir, ensure
from dreamprm_cli.models.fetch import snapshot

_QUICKLY_HASHED = 1 << 20  # bytes below which a digest is not worth a file in the cache


@dataclass(frozen=True, slots=True)
class BackboneSource:
    """A Hugging Face folder with a Qwen2 model. `sha256` is of the file it came from (the GGUF, or the safetensors)."""

    name: str
    sha256: str
    folder: Path


def locate_backbone(spec: str, *, report: Report | None = None) -> BackboneSource:
    """Find, fetch or convert the backbone that `spec` names.

    spec: a registry name (`qwen2.5-coder-0.5b`), `gguf:PATH` or `PATH.gguf`, a folder, or `hf:ORG/NAME`.
    Raises CheckpointError; ConfigError for an unknown name, ModelError when it cannot be fetched.
    """
    bare = spec.removeprefix("gguf:")
    if spec.startswith("hf:"):
        info = ModelInfo(name=spec, repo=spec.removeprefix("hf:"), licence="unknown")
        return _from_folder(spec, snapshot(info, report or (lambda _: None)))
    if bare.endswith(".gguf"):
        path = Path(bare).expanduser()
        if not path.is_file():
            raise CheckpointError(
                f"there is no backbone file {path}", "check the path, or use a name from `dreamprm models list`"
            )
        return _from_gguf(path.stem, path, report)
    if Path(bare).is_dir():
        return _from_folder(Path(bare).name, Path(bare))
    path = ensure(spec, report)
    return _from_folder(spec, path) if path.is_dir() else _from_gguf(spec, path, report)


def _from_folder(name: str, folder: Path) -> BackboneSource:
    digests = [file_digest(path) for path in sorted(folder.glob("*.safetensors"))]
    if not digests:
        raise CheckpointError(f"{folder} has no safetensors file", "a backbone folder holds config.json and weights")
    whole = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return BackboneSource(name, whole, folder)


def _from_gguf(name: str, gguf: Path, report: Report | None) -> BackboneSource:
    digest = file_digest(gguf)
    folder = cache_dir() / "backbones" / f"{gguf.stem}-{digest[:12]}"
    if not (folder / "config.json").exists():
        from dreamprm_cli.prm.convert import convert_gguf

        if report is not None:
            report(Progress(name, "notice", message=f"converting {gguf.name} for scoring (once)"))
        with made_whole(folder) as scratch:
            convert_gguf(gguf, scratch)
    return BackboneSource(name, digest, folder)


@contextlib.contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """A scratch folder that becomes `folder` at the end, or nothing: readers never see half of it.

    When another process was quicker its folder stays, ours goes.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        try:
            scratch.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, remembered in the cache by size and time of change: a model is hashed once, not every time."""
    path = path.resolve()
    stat = path.stat()
    if stat.st_size < _QUICKLY_HASHED:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    stamp = [str(path), stat.st_size, stat.st_mtime_ns]
    memo = cache_dir() / "digests" / (hashlib.sha256(str(path).encode()).hexdigest()[:16] + ".json")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(memo.read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return str(known["sha256"])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        memo.parent.mkdir(parents=True, exist_ok=True)
        scratch = memo.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps({"stamp": stamp, "sha256": digest}), encoding="utf-8")
        scratch.replace(memo)
    return digest
