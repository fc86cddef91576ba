"""Where a backbone's files are: a registry name, a GGUF file or a Hugging Face folder becomes one folder and digest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dreamprm_cli.errors import CheckpointError
from dreamprm_cli.models import REGISTRY, ModelInfo, Progress, Report, cache_dir, ensure
from dreamprm_cli.models.fetch import snapshot
from dreamprm_cli.prm.convert import convert_causal, convert_gguf, describe_gguf

REMAKE = "when it lies in the cache, delete it and it is made again; else fetch it again"
HEAD = "head.safetensors"  # of a reward model; beside the weights where it was exported with its backbone
_QUICKLY_HASHED = 1 << 20  # bytes below which a digest is not worth a file in the cache


@dataclass(frozen=True, slots=True)
class BackboneSource:
    """A Hugging Face folder with a Qwen2 model. `sha256` is of the file it came from (the GGUF, or the safetensors)."""

    name: str
    sha256: str
    folder: Path


@dataclass(frozen=True, slots=True)
class GGUFSource:
    """A GGUF file with a Qwen2 model, and a folder with what `describe_gguf` writes about it. `sha256`: of the file."""

    name: str
    sha256: str
    path: Path
    folder: Path


def locate_backbone(spec: str, *, report: Report | None = None) -> BackboneSource:
    """Find, fetch or convert the backbone that `spec` names.

    spec: a registry name (`qwen2.5-coder-0.5b`), `gguf:PATH` or `PATH.gguf`, a folder, or `hf:ORG/NAME`.
    Raises CheckpointError; ConfigError for an unknown name, ModelError when it cannot be fetched.
    """
    name, path = _find(spec, report)
    if path.is_dir():
        return _from_folder(name, path)
    digest = file_digest(path)
    return BackboneSource(name, digest, _made_of(path, digest, "", convert_gguf, name, report))


def locate_gguf(spec: str, *, report: Report | None = None) -> GGUFSource:
    """As `locate_backbone`, for llama.cpp: the file itself. Needs no torch. CheckpointError for a folder of weights."""
    if not is_gguf(spec):
        raise CheckpointError(f"llama.cpp cannot read {spec}: it is no GGUF file", "use --prm-engine torch")
    name, path = _find(spec, report)
    digest = file_digest(path)
    return GGUFSource(name, digest, path, _made_of(path, digest, "-about", describe_gguf, name, report))


def locate_causal(spec: str, *, report: Report | None = None) -> Path:
    """The Hugging Face folder, LM head and all, of a model that is to write programs; `spec` as for `locate_backbone`.

    A GGUF file is written out once. Needs torch. Raises what `locate_backbone` raises.
    """
    name, path = _find(spec, report)
    return path if path.is_dir() else _made_of(path, file_digest(path), "-causal", convert_causal, name, report)


def is_gguf(spec: str) -> bool:
    """Whether a backbone's name stands for a GGUF file, without fetching it."""
    known = REGISTRY.get(spec)
    return spec.removeprefix("gguf:").endswith(".gguf") if known is None else known.file is not None


def _find(spec: str, report: Report | None) -> tuple[str, Path]:
    """The name of a backbone, and its folder or GGUF file."""
    bare = spec.removeprefix("gguf:")
    if spec.startswith("hf:"):
        info = ModelInfo(name=spec, repo=spec.removeprefix("hf:"), licence="unknown")
        return spec, snapshot(info, report or (lambda _: None))
    if bare.endswith(".gguf"):
        path = Path(bare).expanduser()
        if not path.is_file():
            raise CheckpointError(
                f"there is no backbone file {path}", "check the path, or use a name from `dreamprm models list`"
            )
        return path.stem, path
    if Path(bare).is_dir():
        return Path(bare).name, Path(bare)
    return spec, ensure(spec, report)


def _from_folder(name: str, folder: Path) -> BackboneSource:
    digests = [file_digest(path) for path in sorted(folder.glob("*.safetensors")) if path.name != HEAD]
    if not digests:
        raise CheckpointError(f"{folder} has no safetensors file", "a backbone folder holds config.json and weights")
    whole = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return BackboneSource(name, whole, folder)


def _made_of(
    gguf: Path, digest: str, suffix: str, make: Callable[[Path, Path], None], name: str, report: Report | None
) -> Path:
    """The folder in the cache that `make` fills from a GGUF file, once."""
    folder = cache_dir() / "backbones" / f"{gguf.stem}-{digest[:12]}{suffix}"
    if not (folder / "config.json").exists():
        if report is not None:
            report(Progress(name, "notice", message=f"converting {gguf.name} (once)"))
        with made_whole(folder) as scratch:
            make(gguf, scratch)
    return folder


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
