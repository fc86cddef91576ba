"""Known verdicts: kept, shared between processes, and never worth an error."""

import subprocess
import sys

import pytest

from dreamprm_cli.types import Verdict
from dreamprm_sandbox.cache import Cache, key

VERDICT = Verdict("WA", 1, 3, 0.25, "strong", "docker runc 123", detail="test 2", parts=(("A", True), ("B", False)))


def test_a_verdict_comes_back_as_it_was(tmp_path):
    path = tmp_path / "new" / "cache.db"
    first = Cache(path)
    assert first.verdict("k") is None
    first.keep_verdict("k", VERDICT)
    first.close()
    again = Cache(path)
    assert again.verdict("k") == VERDICT
    assert again.verdict("other") is None


def test_values_of_any_plain_type_are_kept(tmp_path):
    cache = Cache(tmp_path / "cache.db")
    for value in ({"values": (1, {2.5}, b"x", None)}, [], {"a": "\ud800"}):
        cache.keep("k", value)
        assert cache.value("k") == value


def test_another_process_finds_it(tmp_path):
    path = tmp_path / "cache.db"
    code = (
        f"from pathlib import Path\nfrom dreamprm_sandbox.cache import Cache\nCache(Path({str(path)!r})).keep('k', 7)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert Cache(path).value("k") == 7


@pytest.mark.parametrize("damage", [b"", b"not a database at all" * 100])
def test_a_damaged_file_is_an_empty_cache(tmp_path, damage):
    path = tmp_path / "cache.db"
    path.write_bytes(damage)
    cache = Cache(path)
    assert cache.verdict("k") is None
    cache.keep_verdict("k", VERDICT)
    cache.close()


def test_a_damaged_entry_is_no_entry(tmp_path):
    cache = Cache(tmp_path / "cache.db")
    cache.keep_verdict("k", VERDICT)
    assert cache._base is not None
    cache._base.execute("UPDATE entries SET value = ?", (b"\xff\x00",))
    assert cache.verdict("k") is None


def test_a_place_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "cache.db")
    cache.keep("k", 1)
    assert cache.value("k") is None


def test_a_closed_cache_knows_nothing(tmp_path):
    cache = Cache(tmp_path / "cache.db")
    cache.keep("k", 1)
    cache.close()
    cache.keep("k", 2)
    assert cache.value("k") is None


def test_a_key_depends_on_every_part():
    parts = ["verdict", "code", {"tests": [1, 2]}, 3.0]
    keys = {key(*parts), key(*parts[:-1]), key(*parts[::-1]), key("verdict", "code", {"tests": [2, 1]}, 3.0)}
    assert len(keys) == 4
    assert key({"b": 1, "a": 2}) == key({"a": 2, "b": 1})
    assert key("\ud800") != key("x")  # a program of any characters has a key
