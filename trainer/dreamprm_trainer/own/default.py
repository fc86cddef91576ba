"""The line `prm = "FOLDER"` in a repository's `dreamprm.toml`: the PRM that `dreamprm solve` uses there.

FOLDER holds a copy: a later training whose PRM is refused leaves what is in use alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tomllib
from pathlib import Path

from dreamprm_cli.errors import ConfigError

_LINE = re.compile(r"^[ \t]*prm[ \t]*=.*$", re.MULTILINE)
_TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)


def keep(candidate: Path, folder: Path) -> Path:
    """A copy of the checkpoint in place of what `folder` held."""
    scratch, old = (folder.with_name(f".{folder.name}.{what}") for what in ("new", "old"))
    for path in (scratch, old):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(candidate, scratch)
    if folder.exists():
        folder.rename(old)
    scratch.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def adopt(repo: Path, checkpoint: Path) -> Path:
    """Write the line, and leave all other lines as they are; the file. Raises ConfigError where that cannot be done."""
    file = repo / "dreamprm.toml"
    if file.is_symlink() or not repo.is_dir() or not os.access(repo, os.W_OK):
        raise ConfigError(f"cannot write {file}", f"write prm = {json.dumps(str(checkpoint.resolve()))} there yourself")
    try:
        before = file.read_text(encoding="utf-8") if file.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from None
    after = with_line(before, shown(repo, checkpoint))
    try:
        tomllib.loads(after)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    scratch.write_text(after, encoding="utf-8")
    scratch.replace(file)
    return file


def shown(repo: Path, checkpoint: Path) -> str:
    """From the repository's folder where the checkpoint lies in it, else the whole path."""
    there, own = checkpoint.resolve(), repo.resolve()
    return f"./{there.relative_to(own).as_posix()}" if there.is_relative_to(own) else str(there)


def with_line(text: str, prm: str) -> str:
    """The file's text with the line in place of the one there was, which stands before the first table."""
    line = f"prm = {json.dumps(prm)}"
    table = _TABLE.search(text)
    top, rest = (text[: table.start()], text[table.start() :]) if table else (text, "")
    if _LINE.search(top):
        return _LINE.sub(lambda _: line, top, count=1) + rest
    if top and not top.endswith("\n"):
        top += "\n"
    return f"{top}{line}\n" + ("\n" if rest else "") + rest
