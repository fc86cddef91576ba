"""Submissions of several files: what may be in them, and how they are taken apart.

A submission may not hold what a Python or pytest beside it would obey (`conftest.py`, `pytest.ini`, `*.pth` ...), nor
modules that hide others, nor paths that lead elsewhere. Nothing is ever extracted to this machine's disk: members of
an archive are read into memory, and only if they are plain files.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import sys
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MAX_FILES = 200
MAX_BYTES = 4 << 20
_MAX_PATH = 200
_MAX_ARCHIVE = 4 * MAX_BYTES  # headers and padding of many small files included


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_REFUSED = _words(
    "conftest.py pytest.ini .pytest.ini setup.cfg tox.ini pyproject.toml setup.py pytest.toml .pytest.toml "
    "sitecustomize.py usercustomize.py pyvenv.cfg python._pth pip.conf .pdbrc .coveragerc"
)
_REFUSED_ENDS = (".pth", ".pyc", ".pyo", ".so", ".pyd", ".dll", ".egg", ".egg-link", ".whl", "._pth")
_REFUSED_FOLDERS = _words("__pycache__ site-packages dist-packages .git")
# What the container has beside the standard library, and our own.
INSTALLED = _words(
    "pytest _pytest pluggy iniconfig packaging py exceptiongroup attr attrs tomli typing_extensions numpy "
    "sortedcontainers more_itertools zipp importlib_metadata pkg_resources setuptools dreamprm_sandbox"
)
_HIDING = frozenset(name.lower() for name in (*sys.stdlib_module_names, *INSTALLED)) - {"test", "this", "main"}
_MAIN = ("solution", "main")


class Refused(Exception):
    """The submission holds what it may not."""


@dataclass(frozen=True, slots=True)
class Files:
    """A submission taken apart: texts of modules by dotted name, and everything else by path."""

    sources: Mapping[str, str]
    data: Mapping[str, bytes]

    @property
    def main(self) -> str:
        """The module that is run or called: `solution`, `main`, or the only one. Raises Refused."""
        top = [name for name in self.sources if "." not in name]
        for name in [*_MAIN, *(top if len(top) == 1 else [])]:
            if name in self.sources:
                return str(name)
        raise Refused("holds several programs and none is called solution.py or main.py")


# One text, texts by path, or an archive.
Program = str | Mapping[str, str] | bytes


def taken_apart(program: Mapping[str, str] | bytes) -> Files:
    """The submission's modules and other files. Raises Refused."""
    files = unpacked(program) if isinstance(program, bytes) else program
    if not files:
        raise Refused("holds no files")
    if len(files) > MAX_FILES:
        raise Refused(f"holds more than {MAX_FILES} files")
    sources: dict[str, str] = {}
    data: dict[str, bytes] = {}
    seen: dict[str, str] = {}
    size = 0
    for path, text in files.items():
        if not isinstance(path, str) or not isinstance(text, str):
            raise Refused("files must be texts by path")
        _check_path(path)
        if (other := seen.setdefault(path.casefold(), path)) != path:
            raise Refused(f"{_shown(path)} and {_shown(other)} are the same file to some")
        encoded = text.encode("utf-8", "surrogatepass")
        size += len(encoded)
        if size > MAX_BYTES:
            raise Refused(f"holds more than {MAX_BYTES >> 20} MB")
        if path.endswith(".py"):
            name = path.removesuffix(".py").replace("/", ".")
            if not all(part.isidentifier() for part in name.split(".")):
                raise Refused(f"{_shown(path)} cannot be imported")
            sources[name] = text
        else:
            data[path] = encoded
    for path in files:  # a file where another path needs a folder
        parts = path.casefold().split("/")
        if any("/".join(parts[:end]) in seen for end in range(1, len(parts))):
            raise Refused(f"{_shown(path)} lies below a file")
    if not sources:
        raise Refused("holds no Python file")
    return Files(sources, data)


def _check_path(path: str) -> None:
    shown = _shown(path)
    if not path or len(path) > _MAX_PATH or path != unicodedata.normalize("NFKC", path):
        raise Refused(f"{shown}: not a usable path")
    if path.startswith("/") or re.match(r"[A-Za-z]:", path) or path.startswith("~"):
        raise Refused(f"{shown}: an absolute path")
    if any(ord(letter) < 32 or letter in '\\\x7f:*?"<>|' or 0xD800 <= ord(letter) < 0xE000 for letter in path):
        raise Refused(f"{shown}: not a plain path")
    parts = path.split("/")
    if any(part in ("", ".", "..") or (part != part.strip(" .") and part[:1] != ".") for part in parts):
        raise Refused(f"{shown}: a path that leads elsewhere")
    lower = [part.casefold() for part in parts]
    if lower[-1] in _REFUSED or lower[-1].endswith(_REFUSED_ENDS) or _REFUSED_FOLDERS & set(lower):
        raise Refused(f"{shown}: a submission may not bring this file")
    top = lower[0].partition(".")[0] if len(lower) == 1 and lower[0].endswith(".py") else lower[0]
    if top in _HIDING or lower[0].removesuffix("-stubs") in _HIDING:
        raise Refused(f"{shown}: it would hide the module {top!r}")


def _shown(path: str) -> str:
    return repr(path[:100])


def unpacked(data: bytes) -> dict[str, str]:
    """The files of a tar (plain, gz, bz2, xz) or zip archive. Raises Refused for any member that is not a small plain
    file in a plain place; folders are passed over."""
    files: dict[str, str] = {}
    try:
        for name, text in _zipped(data) if data[:2] == b"PK" else _tarred(_inflated(data)):
            if name in files:
                raise Refused(f"holds {_shown(name)} twice")
            files[name] = text
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError,
            RuntimeError, NotImplementedError, LookupError) as error:  # fmt: skip
        raise Refused(f"not an archive that can be read: {error}") from None
    return files


def _inflated(data: bytes) -> bytes:
    """The bytes of a compressed archive, as far as one within the limits can have them."""
    makers: dict[bytes, Any] = {
        b"\x1f\x8b": lambda: zlib.decompressobj(31),
        b"BZ": bz2.BZ2Decompressor,
        b"\xfd7": lambda: lzma.LZMADecompressor(memlimit=256 << 20),
    }
    maker = makers.get(data[:2])
    if maker is None:
        return data
    unpacker = maker()
    plain = bytes(unpacker.decompress(data, _MAX_ARCHIVE + 1))
    if len(plain) > _MAX_ARCHIVE:
        raise Refused(f"unpacks to more than {_MAX_ARCHIVE >> 20} MB")
    if not unpacker.eof:
        raise Refused("an archive that is cut off")
    return plain


def _tarred(data: bytes) -> Iterator[tuple[str, str]]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for number, member in enumerate(archive, 1):
            name = member.name.removeprefix("./").rstrip("/")
            if number > 2 * MAX_FILES:
                raise Refused(f"holds more than {MAX_FILES} files")
            if member.mode & 0o7000:
                raise Refused(f"{_shown(name)}: special rights")
            if member.isdir():
                if name not in ("", "."):
                    _check_path(name)
                continue
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse() or member.linkname:
                raise Refused(f"{_shown(name)}: not a plain file")
            if not 0 <= member.size <= MAX_BYTES:
                raise Refused(f"holds more than {MAX_BYTES >> 20} MB")
            _check_path(name)
            content = archive.extractfile(member)
            yield name, _text(name, content.read() if content is not None else b"")


def _zipped(data: bytes) -> Iterator[tuple[str, str]]:
    left = MAX_BYTES
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if len(members) > 2 * MAX_FILES:
            raise Refused(f"holds more than {MAX_FILES} files")
        names = [member.filename for member in members]
        if len(set(names)) != len(names):
            raise Refused("holds a file twice")
        for member in members:
            name, mode = member.orig_filename, member.external_attr >> 16
            if name != member.filename or member.flag_bits & 1:
                raise Refused(f"{_shown(name)}: not a plain file")
            if mode & 0o7000 or mode >> 12 not in (0, 0o4, 0o10):
                raise Refused(f"{_shown(name)}: not a plain file")
            if member.is_dir():
                _check_path(name.rstrip("/"))
                continue
            _check_path(name)
            with archive.open(member) as file:
                content = file.read(left + 1)
            left -= len(content)
            if left < 0:
                raise Refused(f"holds more than {MAX_BYTES >> 20} MB")
            yield name, _text(name, content)


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(f"{_shown(name)}: not UTF-8 text") from None
