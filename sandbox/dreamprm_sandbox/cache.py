"""Verdicts that are known already, and what reference solutions returned: one SQLite file, shared by all processes.

A key is a digest of everything a verdict depends on: program, tests, mode, limits, image and this package's own code.
A damaged or unwritable file is no error: the cache is only ever a saving.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
from functools import cache
from pathlib import Path
from typing import Any

from dreamprm_cli.types import Verdict
from dreamprm_sandbox import codec
from dreamprm_sandbox.codec import CodecError


class Cache:
    """Two tables: verdicts by key, plain values by key. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._base: sqlite3.Connection | None = None
        with contextlib.suppress(OSError, sqlite3.Error):
            path.parent.mkdir(parents=True, exist_ok=True)
            base = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
            base.execute("PRAGMA journal_mode=WAL")
            base.execute("PRAGMA synchronous=NORMAL")
            base.execute("CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
            self._base = base

    def verdict(self, key: str) -> Verdict | None:
        found = self.value(key)
        return Verdict(**found) if isinstance(found, dict) else None

    def keep_verdict(self, key: str, verdict: Verdict) -> None:
        self.keep(key, {name: getattr(verdict, name) for name in verdict.__slots__})

    def value(self, key: str) -> Any:
        """The plain value kept under a key, None when there is none."""
        if self._base is None:
            return None
        with self._lock, contextlib.suppress(sqlite3.Error, CodecError):
            row = self._base.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()
            return None if row is None else codec.decode(row[0], 1 << 30)
        return None

    def keep(self, key: str, value: Any) -> None:
        if self._base is not None:
            with self._lock, contextlib.suppress(sqlite3.Error, CodecError):
                data = codec.encode(value, 1 << 28, 1 << 28)
                self._base.execute("INSERT OR REPLACE INTO entries VALUES (?, ?)", (key, data))

    def close(self) -> None:
        if self._base is not None:
            self._base.close()
            self._base = None


def key(*parts: Any) -> str:
    """A digest of plain values (JSON's, in their order) and of this package's code."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(f"{_code_digest()}{text}".encode("utf-8", "surrogatepass")).hexdigest()


@cache
def _code_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
