"""A repository as it lies on disk: the files of HEAD in the state that the user has them in, and Python files beside
them that git does not know. Git is asked for HEAD's names and nothing else, so no filter and no hook runs; the one file
that is ever written is the one that `write` is told to.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dreamprm_cli.errors import ProblemError
from dreamprm_trainer.mine import layout
from dreamprm_trainer.mine.repository import MOST_BYTES, Repository


def top(repository: Repository) -> Path:
    """The folder of the working tree. Raises ProblemError for a bare repository."""
    if repository.folder is None:
        raise ProblemError(f"{repository.path}: a bare repository has no files to work on", "name a working tree")
    return repository.folder


def contents(repository: Repository) -> Iterator[tuple[str, bytes]]:
    """(path, content), in no particular order. What is no plain file, is behind a link or has more than 4 MB is left
    out, and so are hidden folders, environments and other repositories within, as far as git does not know them."""
    folder = top(repository)
    known = {file.path for file in repository.files}
    for path in known:
        if (data := read(folder, path)) is not None:
            yield path, data
    for path in _strays(folder):
        if path not in known and (data := read(folder, path)) is not None:
            yield path, data


def read(folder: Path, path: str) -> bytes | None:
    """A file of the working tree; None where it is none that may be read."""
    place = folder
    try:
        for part in PurePosixPath(path).parts:
            place /= part
            mode = place.lstat().st_mode
            if stat.S_ISLNK(mode):
                return None
        if not stat.S_ISREG(mode) or place.stat().st_size > MOST_BYTES:
            return None
        return place.read_bytes()
    except OSError:
        return None


def write(folder: Path, path: str, before: bytes, after: bytes) -> None:
    """Put `after` in the place of a file's content at once. Raises ProblemError, and writes nothing, where that is not
    `before` any more."""
    if read(folder, path) != before:
        raise ProblemError(f"{path} has changed meanwhile: nothing is written")
    place = folder / path
    scratch = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        scratch.write_bytes(after)
        shutil.copymode(place, scratch)
        scratch.replace(place)
    finally:
        scratch.unlink(missing_ok=True)


def _strays(folder: Path) -> Iterator[str]:
    """Python files below the folder that may be a part of the project."""
    for above, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and _own(Path(above, name))]
        for name in names:
            path = Path(above, name).relative_to(folder).as_posix()
            if layout.is_python(path):
                yield path


def _own(folder: Path) -> bool:
    return not any((folder / mark).exists() for mark in (".git", "pyvenv.cfg"))
