"""Markdown and rows become problems; whatever cannot is refused in one line that names the place."""

import gzip
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.problem import load_problem, load_problem_set, parse_markdown
from dreamprm_cli.problem.names import infer_entry_point
from dreamprm_cli.prompts import cof_prompt, prm_input
from dreamprm_cli.types import Example, Problem

EXAMPLES = Path(__file__).parent.parent / "examples"

FULL = """---
id: sums
title: Sums of rows
language: py
time_limit_s: 1.5
---
# A heading

Add the numbers of each row.

```python starter
def row_sums(rows):
    ...
```

```input
[[1, 2], [3]]
```
gives
```output
[3, 3]
```
"""

HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": 'import math\n\n\ndef total(xs: list) -> int:\n    """ Sum of xs.\n    >>> total([1])\n    1\n    """\n',
    "entry_point": "total",
    "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n",
}
EVALPLUS = {**HUMANEVAL, "base_input": [[[1, 2]]], "plus_input": [[[]]], "contract": "", "atol": 0}
MBPP_PLUS = {
    "task_id": "Mbpp/900",
    "prompt": '"""\nWrite a function to add two numbers.\nassert add(1, 2) == 3\n"""\n',
    "entry_point": "add",
    "base_input": [[1, 2]],
    "plus_input": [],
    "assertion": "assert add(1, 2) == 3",
}
OWN = {
    "task_id": "Own/1",
    "title": "gap",
    "statement": "Print the gap.",
    "starter_code": "",
    "entry_point": None,
    "split": "train",
    "tests": {"kind": "stdin", "cases": [{"stdin": "1 2", "stdout": "1"}], "n": 1},
    "examples": [{"input": "1 2", "output": "1"}],
}
LIVECODE = {
    "question_id": "3000",
    "question_title": "rotate",
    "question_content": "Rotate the list.",
    "starter_code": "class Solution:\n    def rotate(self, xs: List[int]) -> List[int]:\n        ",
    "public_test_cases": json.dumps([{"input": "[1, 2]", "output": "[2, 1]", "testtype": "functional"}]),
    "private_test_cases": "",
    "metadata": json.dumps({"func_name": "rotate"}),
}


def write_set(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def parse(text, **kwargs):
    return parse_markdown(text, "p.md", problem_id="p", **kwargs)


# Markdown


def test_every_field_of_a_markdown_problem():
    problem = parse(FULL)
    assert (problem.id, problem.title, problem.language, problem.time_limit_s) == (
        "sums",
        "Sums of rows",
        "python",
        1.5,
    )
    assert problem.starter_code == "def row_sums(rows):\n    ...\n"
    assert problem.entry_point == "row_sums"
    assert problem.tests.kind == "examples"
    assert problem.tests.examples == (Example("[[1, 2], [3]]\n", "[3, 3]\n"),)


def test_the_model_sees_the_examples_but_the_starter_code_only_once():
    statement = parse(FULL).statement
    assert "Input:\n```\n[[1, 2], [3]]\n```\ngives\nOutput:\n```\n[3, 3]\n```" in statement
    assert "row_sums" not in statement
    assert statement.startswith("# A heading\n\nAdd")
    assert "\n\n\n" not in statement


def test_a_bare_text_is_a_stdin_program():
    problem = parse("Print the sum of two integers.\n")
    assert (problem.id, problem.title, problem.entry_point, problem.language) == ("p", "", None, "python")
    assert problem.tests.kind == "none"


def test_front_matter_is_taken_as_it_is_written():
    problem = parse("---\nid: 1.10\ntitle: No\nentry_point: null\n---\nText\n")
    assert (problem.id, problem.title, problem.entry_point) == ("1.10", "No", None)


def test_first_heading_is_not_sought_in_fences():
    assert parse("```\n# a comment\n```\n## The task ##\n").title == "The task"


def test_only_the_first_starter_fence_leaves_the_text():
    problem = parse("Do.\n```starter\ndef f():\n```\n```starter\ndef g():\n```\n")
    assert problem.entry_point == "f"
    assert "def g()" in problem.statement


def test_fences_of_other_marks_and_lengths():
    problem = parse("Do.\n~~~ input\n```\n~~~~\n````output\n```\nx\n````\n")
    assert problem.tests.examples == (Example("```\n", "```\nx\n"),)
    assert "Input:\n````\n```\n````" in problem.statement


def test_starter_fence_tells_the_language():
    assert parse("Do.\n```cpp starter\nint f();\n```\n").language == "cpp"
    assert parse("---\nlanguage: C++\n---\nDo.\n").language == "cpp"


def test_tests_are_a_path_from_the_file(tmp_path):
    (tmp_path / "checks").mkdir()
    (tmp_path / "p.md").write_text("---\ntests: checks\n---\nDo.\n")
    problem = load_problem(str(tmp_path / "p.md"))
    assert problem.tests.kind == "pytest"
    assert problem.tests.payload == {"path": str(tmp_path / "checks")}


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    path = tmp_path / "p.md"
    path.write_bytes(b"\xef\xbb\xbf" + FULL.replace("\n", "\r\n").encode())
    assert load_problem(str(path)) == parse(FULL)


def test_standard_input():
    assert load_problem("-", io.StringIO("# Sum\n")).id == "stdin"
    latin = io.TextIOWrapper(io.BytesIO("# Größe\n".encode()), encoding="latin-1")
    assert load_problem("-", latin).title == "Größe"


BAD_MARKDOWN = [
    ("---\nid: x\nText", "p.md:1: the front matter is not closed"),
    ("---\nid: [\n---\nText", "p.md:2: front matter is not valid YAML"),
    ("---\n- a\n---\nText", "p.md:2: front matter must be `key: value` lines"),
    ("---\nid: a\nentrypoint: f\n---\nText", "p.md:3: unknown key 'entrypoint'"),
    ("---\nid: a\nid: b\n---\nText", "p.md:3: id is given twice"),
    ("---\nid: [a]\n---\nText", "p.md:2: id must be one line of text, not a sequence"),
    ("---\ntitle: {a: b}\n---\nText", "p.md:2: title must be one line of text, not a mapping"),
    ("---\nid: ''\n---\nText", "p.md:2: id is empty"),
    ("---\ntime_limit_s: soon\n---\nText", "p.md:2: time_limit_s must be a number of seconds above 0, not 'soon'"),
    ("---\ntime_limit_s: 0\n---\nText", "p.md:2: time_limit_s must be a number of seconds above 0"),
    ("---\ntime_limit_s: .inf\n---\nText", "p.md:2: time_limit_s must be a number of seconds above 0"),
    ("---\nid: !!python/object/apply:os.getcwd []\n---\nText", "p.md:2: front matter is not valid YAML"),
    ("---\nlanguage: cobol\n---\nText", "p.md:2: unknown language 'cobol'"),
    ("---\nentry_point: two words\n---\nText", "p.md: entry_point 'two words' is not a name"),
    ("---\nentry_point: class\n---\nText", "p.md: entry_point 'class' is not a name"),
    ("---\ntests: nowhere\n---\nText", "p.md: tests: there is no "),
    ("Text\n```input\n1\n```\n", "p.md:2: this input has no output"),
    ("Text\n```input\n1\n```\n```input\n2\n```\n", "p.md:2: this input has no output (another input follows)"),
    ("---\nid: a\n---\nText\n```output\n1\n```\n", "p.md:5: this output has no input before it"),
    ("---\nid: a\n---\nText\n\n```input\n1\n", "p.md:6: this fence is not closed"),
    ("---\nlanguage: go\n---\nText\n```rust starter\nfn f()\n```\n", "p.md:5: the starter code is rust, but language"),
    ("```starter\ndef f():\n```\n", "p.md: no text says what is to be done"),
]


@pytest.mark.parametrize(("text", "message"), BAD_MARKDOWN)
def test_bad_markdown_is_one_clear_line(text, message):
    with pytest.raises(ProblemError) as caught:
        parse(text)
    assert caught.value.message.startswith(message)
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 42


def test_near_misses_are_named():
    with pytest.raises(ProblemError) as caught:
        parse("---\ntime_limit: 3\n---\nText")
    assert caught.value.hint == "did you mean time_limit_s?"
    with pytest.raises(ProblemError) as caught:
        parse("---\nlanguage: pyhton\n---\nText")
    assert caught.value.hint.startswith("did you mean python?")


@given(st.text(alphabet=st.sampled_from("-`~#: \nabinputoutputstarter[]{}0'\"")))
def test_any_text_is_a_problem_or_a_problem_error(text):
    try:
        said = parse(text).statement
    except ProblemError as error:
        said = error.message.splitlines() == [error.message]
    assert said


# Files


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "empty.md").write_text(" \n")
    (tmp_path / "binary.md").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "latin.md").write_bytes("Grö\nGröße".encode("latin-1"))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}' * 9)[:-9])
    for name, message in {
        "none.md": "there is no file",
        ".": "is a directory, not a file",
        "empty.md": "empty.md: empty",
        "binary.md": "binary.md: a binary file, not text",
        "latin.md": "latin.md:1: not UTF-8 text",
        "cut.jsonl.gz": "damaged gzip file",
        "none.jsonl#x": "there is no file",
        "nul\0.md": "cannot read",
    }.items():
        with pytest.raises(ProblemError) as caught:
            load_problem(os.path.join(tmp_path, name))
        assert message in caught.value.message
        assert "\n" not in caught.value.message
    with pytest.raises(ProblemError) as caught:
        load_problem("-", io.StringIO("\n"))
    assert caught.value.message == "<stdin>: empty"


def test_a_misspelt_file_is_suggested(tmp_path):
    (tmp_path / "intervals.md").write_text("x")
    with pytest.raises(ProblemError) as caught:
        load_problem(str(tmp_path / "interval.md"))
    assert caught.value.hint == f"did you mean {tmp_path / 'intervals.md'}?"


# Rows


def test_humaneval_row(tmp_path):
    problem = load_problem(f"{write_set(tmp_path / 'h.jsonl', [HUMANEVAL, OWN])}#HumanEval/900")
    assert (problem.id, problem.entry_point, problem.tests.kind) == ("HumanEval/900", "total", "humaneval")
    assert problem.statement == "Sum of xs.\n>>> total([1])\n1"
    assert problem.starter_code == HUMANEVAL["prompt"]
    assert problem.tests.payload == HUMANEVAL


def test_evalplus_rows(tmp_path):
    first, second = load_problem_set(write_set(tmp_path / "e.jsonl.gz", [EVALPLUS, MBPP_PLUS]))
    assert first.tests.kind == second.tests.kind == "evalplus"
    assert first.starter_code == EVALPLUS["prompt"]
    # An MBPP+ prompt is nothing but a docstring: there is no code to start from.
    assert second.statement == "Write a function to add two numbers.\nassert add(1, 2) == 3"
    assert (second.starter_code, second.entry_point) == ("", "add")


def test_prompt_that_does_not_parse_is_its_own_statement(tmp_path):
    row = {**HUMANEVAL, "prompt": "def total(xs:\n"}
    problem = load_problem(str(write_set(tmp_path / "h.jsonl", [row])))
    assert problem.statement == "def total(xs:"


def test_own_rows(tmp_path):
    plain = {"task_id": "2", "statement": "Add.", "entry_point": "add", "tests": [{"input": [1, 2], "output": 3}]}
    bare = {"task_id": "3", "statement": "Say hello.", "examples": [{"input": "", "output": "hello"}], "language": "Go"}
    own, second, third = load_problem_set(write_set(tmp_path / "o.jsonl", [OWN, plain, bare]))
    assert (own.id, own.title, own.entry_point, own.tests.kind) == ("Own/1", "gap", None, "stdin")
    assert own.tests.examples == (Example("1 2", "1"),)
    assert own.tests.payload["split"] == "train"
    assert (second.tests.kind, third.tests.kind, third.language) == ("plain", "examples", "go")


def test_policy_and_prm_are_told_of_the_module_around(tmp_path):
    row = {
        "task_id": "m",
        "statement": "Add.",
        "entry_point": "add",
        "context": "import math\n\n\ndef add(a, b):\n    ...",
    }
    [one] = load_problem_set(write_set(tmp_path / "o.jsonl", [row]))
    for text in (cof_prompt(one).user, prm_input(one).text):
        assert text.count("```python\nimport math\n\n\ndef add(a, b):\n    ...\n```\n\n") == 1
        assert text.index("import math") < text.index("Add.")
    bare = replace(one, context=" \n")
    assert "module" not in cof_prompt(bare).user + prm_input(bare).text


HEAD = 'def gap(a, b):\n    """Return how far a is from b."""\n'


@pytest.mark.parametrize(
    "starter",
    [HEAD, "@cached\nasync def gap(self,\n              b):\n", "def gap(a): # how far\n", HEAD.replace("    ", "\t")],
)
def test_the_answer_goes_on_from_the_head_that_a_module_waits_for(starter):
    one = Problem("m", "Say how far.", starter, entry_point="Line.gap", context="import math\n")
    prompt = cof_prompt(one)
    assert prompt.begun == starter
    assert prompt.prefill == f"```python\n{starter}"
    assert "class Line" not in prompt.user
    assert starter.rstrip() in prompt.user  # for those that answer afresh
    assert prompt.after("x = 1\n").prefill == "```python\nx = 1\n"
    assert cof_prompt(replace(one, context="")).prefill == "```python\n"


@pytest.mark.parametrize(
    "starter",
    ["", "def gap(a, b):\n    ...\n", f"{HEAD}    return abs(a - b)\n", f"import math\n{HEAD}", "def gap(", "\0"],
)
def test_other_starter_code_is_for_the_policy_to_begin(starter):
    prompt = cof_prompt(Problem("m", "Say how far.", starter, entry_point="gap", context="import math\n"))
    assert (prompt.begun, prompt.prefill) == ("", "```python\n")


def test_livecodebench_row(tmp_path):
    stdin = {**LIVECODE, "question_id": 17, "starter_code": "", "metadata": "{}"}
    functional, program = load_problem_set(write_set(tmp_path / "l.jsonl", [LIVECODE, stdin]))
    assert (functional.id, functional.title) == ("3000", "rotate")
    assert functional.entry_point == "Solution.rotate"
    assert functional.tests.kind == "livecodebench"
    assert functional.tests.examples == (Example("[1, 2]", "[2, 1]"),)
    assert (program.id, program.entry_point) == ("17", None)


def test_a_set_of_one_needs_no_task_id(tmp_path):
    path = write_set(tmp_path / "o.jsonl", [OWN])
    assert load_problem(str(path)).id == "Own/1"
    path = write_set(tmp_path / "o.jsonl", [OWN, {**OWN, "task_id": "Own/2"}])
    with pytest.raises(ProblemError) as caught:
        load_problem(str(path))
    assert caught.value.message.endswith("holds 2 problems")
    assert caught.value.hint.endswith("o.jsonl#Own/1")


def test_unknown_task_names_the_nearest(tmp_path):
    path = write_set(tmp_path / "h.jsonl", [HUMANEVAL, OWN])
    with pytest.raises(ProblemError) as caught:
        load_problem(f"{path}#HumanEval/90")
    assert caught.value.message.endswith("no task 'HumanEval/90'")
    assert caught.value.hint == f"did you mean {path}#HumanEval/900?"


BAD_ROWS = [
    ("{", ":2: not valid JSON"),
    ("[1]", ":2: a row must be a JSON object, not list"),
    ("[" * 100_000, ":2: JSON nested too deep"),
    ({}, ":2: no field 'task_id'"),
    ({**OWN, "task_id": ["x"]}, ":2: 'task_id' must be text, not list"),
    (OWN, ":2: task id 'Own/1' occurs twice (first at "),
    ({**OWN, "task_id": "b", "statement": None}, ":2: no field 'statement'"),
    ({**OWN, "task_id": "b", "statement": " "}, ":2: 'statement' is empty"),
    ({**OWN, "task_id": "b", "starter_code": 3}, ":2: 'starter_code' must be text, not int"),
    ({**OWN, "task_id": "b", "entry_point": "a b"}, ":2: entry_point 'a b' is not a name"),
    ({**OWN, "task_id": "b", "language": "cobol"}, ":2: unknown language 'cobol'"),
    ({**OWN, "task_id": "b", "tests": 1}, ":2: 'tests' must be an object or a list, not int"),
    ({**OWN, "task_id": "b", "tests": {}}, ":2: 'tests': no field 'kind'"),
    ({**OWN, "task_id": "b", "tests": {"kind": "magic"}}, ":2: unknown kind of tests 'magic'"),
    ({**OWN, "task_id": "b", "examples": [{"input": "1"}]}, ":2: examples 1: no field 'output'"),
    ({**OWN, "task_id": "b", "examples": {"input": "1"}}, ":2: 'examples' must be a list, not dict"),
    ({**OWN, "task_id": "b", "time_limit_s": -1}, ":2: 'time_limit_s' must be a number of seconds above 0"),
    ({**HUMANEVAL, "test": None}, ":2: no field 'test'"),
    ({**HUMANEVAL, "entry_point": ""}, ":2: 'entry_point' is empty"),
    ({**LIVECODE, "metadata": "{"}, ":2: 'metadata' does not hold valid JSON"),
    ({**LIVECODE, "metadata": "[]"}, ":2: 'metadata' must hold a JSON object, not list"),
    ({**LIVECODE, "public_test_cases": "[1]"}, ":2: public_test_cases 1 must be an object, not int"),
    ({**LIVECODE, "private_test_cases": 7}, ":2: 'private_test_cases' must be text, not int"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_bad_rows_are_named_by_line(tmp_path, row, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(OWN) + "\n" + (row if isinstance(row, str) else json.dumps(row)) + "\n")
    with pytest.raises(ProblemError) as caught:
        load_problem_set(path)
    assert caught.value.message.startswith(f"{path}{message}")
    assert "\n" not in caught.value.message


def test_a_set_without_rows(tmp_path):
    (tmp_path / "e.jsonl").write_text("\n\n")
    with pytest.raises(ProblemError, match="empty"):
        load_problem_set(tmp_path / "e.jsonl")


def test_line_separators_inside_json_do_not_end_a_row(tmp_path):
    path = tmp_path / "o.jsonl"
    path.write_text(json.dumps({**OWN, "statement": "a\u2028b\x85c"}, ensure_ascii=False), encoding="utf-8")
    assert load_problem(str(path)).statement == "a\u2028b\x85c"


# Entry points


@pytest.mark.parametrize(
    ("starter", "expected"),
    [
        ("def f(x):\n    ", "f"),
        ("import re\n\nasync def f(x):\n    def inner(): ...\n", "f"),
        ("def f(): ...\ndef g(): ...\n", None),
        ("class Solution:\n    def run(self, xs):\n        ", "Solution.run"),
        ("class Solution:\n    def __init__(self): ...\n    def run(self): ...\n", "Solution.run"),
        ("class Solution:\n    def a(self): ...\n    def b(self): ...\n", None),
        ("# class Node:\n#     def x(self): ...\nclass Solution:\n    def run(self): ...\n", "Solution.run"),
        ("class Node:\n    def x(self): ...\nclass Solution:\n    def run(self): ...\n", "Solution.run"),
        ("class Stack:\n    def push(self, x): ...\n", None),
        ('"""\ndef quoted(): ...\n"""\ndef f(): ...\n', "f"),
        ("", None),
    ],
)
def test_entry_point_is_inferred_when_it_is_plain(starter, expected):
    assert infer_entry_point(starter) == expected


# The examples that ship


def test_shipped_examples():
    problems = {path.stem: load_problem(str(path)) for path in EXAMPLES.glob("*.md")}
    assert {name: p.entry_point for name, p in problems.items()} == {
        "merge_intervals": None,
        "run_lengths": "compress",
        "warehouse_robot": "Solution.finalCell",
        "top_words": None,
    }
    assert all(len(p.tests.examples) == 2 and p.title for p in problems.values())
    assert problems["merge_intervals"].tests.examples[0] == Example("4\n1 3\n2 6\n8 10\n15 18\n", "3 10\n")
    assert problems["top_words"].language == "javascript"
