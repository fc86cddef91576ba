"""A git repository, read and never touched: objects come out of `git cat-file`, no file of it is checked out.

Git itself is only asked for objects and commits (`rev-parse`, `rev-list`, `cat-file`), under settings that leave it
nothing to run and nobody to call: no hooks, no filters, no file system monitor, no transports (a partial clone fetches
nothing), no settings but the repository's own, and no locks. Submodules are left where they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import ConfigError, ProblemError

MOST_BYTES = 4 << 20  # of a file
_FOLDER, _FILE, _LINK, _MODULE = 0o040000, 0o100000, 0o120000, 0o160000
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "protocol.allow": "never",
    "safe.directory": "*",  # nothing of it is obeyed, so it may be anyone's
    "gc.auto": "0",
    "maintenance.auto": "false",
}
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES": "",
    "GIT_CONFIG_PARAMETERS": "",
    "GIT_CONFIG_COUNT": str(len(_SETTINGS)),
    **{f"GIT_CONFIG_KEY_{number}": key for number, key in enumerate(_SETTINGS)},
    **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(_SETTINGS.values())},
}


@dataclass(frozen=True, slots=True)
class File:
    """A plain file of a commit. `blob` names its content: equal blobs are equal files."""

    path: str
    blob: str


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit: its hexadecimal name, seconds since 1970 (committed), the first line of its message."""

    sha: str
    time: int
    subject: str


class Damaged(Exception):
    """An object is missing or cannot be read."""


class Repository:
    """The repository at `path` (a work tree, a linked one, or a bare repository), at a commit.

    Raises ProblemError when there is none, when it holds no commit, or when HEAD's commit cannot be read.
    """

    def __init__(self, path: Path, commit: str = "HEAD") -> None:
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        try:
            import git
        except ImportError:
            raise ConfigError("mining needs GitPython", "pip install 'dreamprm[train]'") from None
        self.path = path
        if not path.exists():
            raise ProblemError(f"there is no folder {path}")
        try:
            found = git.Repo(path, expand_vars=False)
        except (git.exc.InvalidGitRepositoryError, git.exc.NoSuchPathError, OSError, ValueError):
            raise ProblemError(
                f"{path} is not a git repository", "name its top folder; `git init` and a commit make one"
            ) from None
        except Exception as error:  # a damaged config: its parser raises what it likes
            raise ProblemError(f"{path}: the repository's settings cannot be read: {_line(error)}") from None
        self._git_dir = Path(found.git_dir).absolute()
        common = self._git_dir / _first_line(self._git_dir / "commondir")
        self.folder = None if found.bare else path.absolute()
        # In its own folder, not in the work tree: `core.worktree` may name any place.
        found.git = git.Git(str(self._git_dir))
        found.git.update_environment(
            **_ENVIRONMENT,
            GIT_DIR=str(self._git_dir),
            GIT_COMMON_DIR=str(common),
            GIT_WORK_TREE=str(self._git_dir),
            GIT_OBJECT_DIRECTORY=str(common / "objects"),
        )
        found.odb = git.GitCmdObjectDB(str(common / "objects"), found.git)
        self._common, self._repo, self._git = common, found, git
        self._listings: dict[str, dict[str, tuple[int, str]]] = {}
        self.left_out: list[tuple[str, str]] = []
        self.sha = self._head(commit)

    def _head(self, commit: str) -> str:
        try:
            sha = str(self._repo.git.rev_parse("--verify", "--quiet", "--end-of-options", commit))
        except self._git.exc.GitCommandNotFound:
            raise ConfigError("mining needs git", "install git") from None
        except self._git.exc.GitCommandError as error:
            said = _line(error.stderr.strip().removeprefix("stderr:").strip(" '\n"))
            raise ProblemError(
                f"{self.path}: HEAD names no commit{f': {said}' if said else ' (an empty repository)'}",
                "commit something first",
            ) from None
        try:
            self._tree(sha)
        except Damaged as error:
            raise ProblemError(f"{self.path}: HEAD's commit cannot be read: {error}", "try `git fsck`") from None
        return sha

    @property
    def shallow(self) -> bool:
        return (self._common / "shallow").is_file()

    @cached_property
    def files(self) -> tuple[File, ...]:
        """The plain files of HEAD by path. What is none, or cannot be read, goes to `left_out`."""
        return tuple(self.files_of(self.sha, self.left_out))

    def files_of(self, sha: str, left_out: list[tuple[str, str]] | None = None) -> list[File]:
        """The plain files of a commit. Raises Damaged only where not even its top folder can be read."""
        found: list[File] = []
        missed = left_out if left_out is not None else []
        waiting = [("", self._tree(sha))]
        while waiting:
            above, tree = waiting.pop()
            for mode, name, blob in self._entries(tree):
                path = above + name
                kind = mode & 0o170000
                if not _plain(name):
                    missed.append((_shown(path), "its name is not a plain path"))
                elif kind == _FOLDER:
                    try:
                        waiting.append((f"{path}/", self._object("Tree", blob)))
                        _ = waiting[-1][1].size
                    except Damaged as error:
                        waiting.pop()
                        missed.append((f"{path}/", str(error)))
                elif kind == _MODULE:
                    missed.append((path, "a submodule"))
                elif kind == _LINK:
                    missed.append((path, "a link"))
                elif kind == _FILE:
                    found.append(File(path, blob))
        return sorted(found, key=lambda file: file.path)

    def changed(self, before: str, after: str) -> list[tuple[File | None, File | None]]:
        """(old, new) of the plain files that differ between two commits; None where there is none. Raises Damaged."""
        found: dict[str, list[File | None]] = {}
        waiting: list[tuple[str, str, str]] = [("", self._tree(before).hexsha, self._tree(after).hexsha)]
        while waiting:
            above, *pair = waiting.pop()
            sides = [self._listing(sha) if sha else {} for sha in pair]
            for name in sides[0].keys() | sides[1].keys():
                old, new = (side.get(name, (0, "")) for side in sides)
                if old == new or not _plain(name):
                    continue
                one, other = (sha if mode & 0o170000 == _FOLDER else "" for mode, sha in (old, new))
                if one or other:
                    waiting.append((f"{above}{name}/", one, other))
                for number, (mode, sha) in enumerate((old, new)):
                    if mode & 0o170000 == _FILE:
                        found.setdefault(above + name, [None, None])[number] = File(above + name, sha)
        return [(found[path][0], found[path][1]) for path in sorted(found)]

    def read(self, file: File) -> bytes:
        """A file's content. Raises Damaged, also for one of more than 4 MB."""
        blob = self._object("Blob", file.blob)
        try:
            if blob.size > MOST_BYTES:
                raise Damaged(f"larger than {MOST_BYTES >> 20} MB")
            return bytes(blob.data_stream.read())
        except Damaged:
            raise
        except Exception as error:
            raise self._damaged(error) from None

    def history(self, limit: int) -> Iterator[Revision]:
        """HEAD and its first parents, the newest first, at most `limit`; ends where the history does or is broken."""
        try:
            for commit in self._repo.iter_commits(self.sha, first_parent=True, max_count=limit):
                message = (
                    commit.message if isinstance(commit.message, str) else commit.message.decode("utf-8", "replace")
                )
                yield Revision(commit.hexsha, commit.committed_date, _line(message))
        except Exception as error:
            self.left_out.append(("history", f"it ends early: {self._damaged(error)}"))

    def close(self) -> None:
        """End git's processes."""
        self._repo.git.clear_cache()

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tree(self, sha: str) -> Any:
        try:
            tree = self._repo.commit(sha).tree
            _ = tree.size
        except Exception as error:
            raise self._damaged(error) from None
        return tree

    def _object(self, kind: str, blob: str) -> Any:
        try:
            found = getattr(self._git, kind)(self._repo, bytes.fromhex(blob), 0, "")
            _ = found.size
        except Exception as error:
            raise self._damaged(error) from None
        return found

    def _listing(self, sha: str) -> dict[str, tuple[int, str]]:
        """name -> (mode, object) of a folder; those of one commit serve the next."""
        if sha not in self._listings:
            if len(self._listings) > 20_000:
                self._listings.clear()
            self._listings[sha] = {name: (mode, blob) for mode, name, blob in self._entries(self._object("Tree", sha))}
        return self._listings[sha]

    def _entries(self, tree: Any) -> list[tuple[int, str, str]]:
        try:
            return [(mode, name, sha.hex()) for sha, mode, name in tree._cache]
        except Exception as error:
            missed = self._damaged(error)
            self.left_out.append((tree.hexsha, f"a folder that cannot be read: {missed}"))
            return []

    def _damaged(self, error: Exception) -> Damaged:
        """Whatever git, or GitPython's reading of it, stumbled over. Its processes begin anew."""
        self._repo.git.clear_cache()
        return Damaged(f"missing or damaged ({_line(error) or type(error).__name__})")


def _first_line(path: Path) -> str:
    """Of a file of git's; empty where there is none."""
    try:
        return os.fsdecode(path.read_bytes()).partition("\n")[0].strip()
    except OSError:
        return ""


def _plain(name: str) -> bool:
    return name not in ("", ".", "..") and name.lower() != ".git" and name.isprintable() and not set(name) & {"/", "\\"}


def _shown(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def _line(error: object) -> str:
    text = str(error.decode("utf-8", "replace") if isinstance(error, bytes) else error).strip()
    return _shown((text.splitlines() or [""])[0][:160])
