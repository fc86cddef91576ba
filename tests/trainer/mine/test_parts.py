"""Splits, near-duplicates and history: what is held out stays apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiny_git import MODULE, PROJECT, commit

from dreamprm_trainer.mine import duplicates, history, pipeline, split
from dreamprm_trainer.mine.functions import Function, module
from dreamprm_trainer.mine.pipeline import Options
from dreamprm_trainer.mine.repository import Repository

Make = Callable[..., Path]
LOOP = """
def {name}({value}):
    found = []
    for one in {value}:
        if one % 2 == 0 and one not in found:
            found.append(one * {factor})
    return sorted(found, reverse=True)
"""


def _functions(code: str, path: str = "a.py") -> list[Function]:
    return list(module(path, code.encode()).functions)


def _many(files: int, each: int) -> list[Function]:
    code = "".join(f"def f{k}():\n    return {k}\n" for k in range(each))
    return [one for number in range(files) for one in _functions(code, f"m{number}.py")]


def test_a_file_is_of_one_part() -> None:
    functions = _many(20, 5)
    parts = split.by_file(functions)
    for path in {one.path for one in functions}:
        assert len({parts[one.id] for one in functions if one.path == path}) == 1
    counts = {part: list(parts.values()).count(part) for part in ("train", "dev", "test")}
    assert 15 <= counts["test"] <= 25
    assert 10 <= counts["dev"] <= 20


def test_one_file_is_split_by_function_with_something_held_out() -> None:
    functions = _many(1, 13)
    assert set(split.by_file(functions).values()) == {"train", "dev", "test"}


def test_by_time_the_newest_are_held_out() -> None:
    functions = _many(2, 10)
    changed = {one.id: number for number, one in enumerate(functions)}
    parts = split.by_time(functions, changed)
    assert [parts[one.id] for one in functions] == ["train"] * 13 + ["dev"] * 3 + ["test"] * 4


def test_near_duplicates_whatever_their_names() -> None:
    one = _functions(LOOP.format(name="f", value="xs", factor=2))
    same = _functions(LOOP.format(name="g", value="values", factor=2), "b.py")
    near = _functions(LOOP.format(name="h", value="values", factor=3), "c.py")
    other = _functions(MODULE, "d.py")
    assert duplicates.across([*same, *near, *other], one) == {"b.py::g": "a.py::f", "c.py::h": "a.py::f"}
    assert duplicates.across(other, one) == {}


def test_prefix_filtering_finds_what_comparing_all_would() -> None:
    longer = "    x = xs[0]\n"
    codes = [LOOP.format(name="f", value="xs", factor=k) + longer * (k % 7) for k in range(40)]
    functions = [_functions(code, f"m{number}.py")[0] for number, code in enumerate(codes)]
    train, held = functions[:20], functions[20:]
    for same in (0.5, 0.7, 0.9):
        expected = {
            one.id
            for one in train
            if any(len(one.shingles & two.shingles) / len(one.shingles | two.shingles) >= same for two in held)
        }
        assert duplicates.across(train, held, same).keys() == expected


def _mine(folder: Path, out: Path, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    with Repository(folder) as repository:
        report = pipeline.mine(repository, out, Options(tests=False, **options))
    return report, [json.loads(line) for line in (out / "tasks.jsonl").read_text().splitlines()]


def test_no_body_of_the_held_out_part_is_in_a_training_row(make: Make, tmp_path: Path) -> None:
    code = "".join(
        f"def f{k}(x):\n    '''Number {k}.'''\n    return f{k - 1}(x) + body_of_{k}\n\n\n" for k in range(1, 21)
    )
    report, rows = _mine(make({"one.py": code}), tmp_path / "out")
    parts = {row["qualname"]: row["split"] for row in rows}
    assert set(parts.values()) == {"train", "dev", "test"}
    assert report["splits"]["test"] == 4
    for row in rows:
        text = json.dumps(row)
        own = row["qualname"].removeprefix("f")
        for name, part in parts.items():
            number = name.removeprefix("f")
            if part != row["split"]:
                assert f"body_of_{number}\\n" not in text.replace(f"body_of_{own}\\n", "")


def test_a_fix_with_a_test_is_a_pair(make: Make, tmp_path: Path) -> None:
    wrong = MODULE.replace("result += value", "result -= value")
    folder = make({**PROJECT, "project/sums.py": wrong})
    commit(folder, {"README": "no code"}, day=3)
    commit(folder, {"project/sums.py": MODULE, "tests/test_sums.py": "def test(): pass\n"}, day=5, message="Fix total")
    commit(folder, {"project/sums.py": MODULE.replace("The sum of", "Sum of") + "# end\n"}, day=8)
    with Repository(folder) as repository:
        found = history.read(repository, pipeline.read(repository).fit)
    (pair,) = found.pairs
    assert (pair.qualname, pair.subject, pair.touched, pair.tests) == ("total", "Fix total", 1, ("tests/test_sums.py",))
    assert "result -= value" in pair.before
    assert "result += value" in pair.after
    assert found.survived_days("project/sums.py::total") == 3.0  # a docstring is no change
    assert found.survived_days("project/sums.py::Counter.add") == 7.0
    report, rows = _mine(folder, tmp_path / "out", past=True)
    assert report["pairs"] == 1
    assert {row["qualname"]: row["survived_days"] for row in rows} == {"total": 3.0, "Counter.add": 7.0}
    assert "survived_days" not in _mine(folder, tmp_path / "other")[1][0]


def test_split_by_time_holds_out_what_changed_last(make: Make, tmp_path: Path) -> None:
    code = "".join(f"def f{k}(x):\n    '''Number {k}.'''\n    return x + {k}\n\n\n" for k in range(10))
    folder = make({"a.py": code})
    commit(
        folder, {"a.py": code.replace("return x + 3", "return 3 + x").replace("return x + 7", "return 7 + x")}, day=9
    )
    _, rows = _mine(folder, tmp_path / "out", by="time")
    assert {row["qualname"] for row in rows if row["split"] == "test"} == {"f3", "f7"}
