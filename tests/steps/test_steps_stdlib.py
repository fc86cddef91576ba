"""The standard library's own sources, cut anywhere; `ast` says what their functions are.

A random sample within a few seconds; DREAMPRM_STDLIB=all takes every file.
"""

import os
import random
import time
from pathlib import Path

import stdlib_corpus as corpus
from splitting import check

from dreamprm_cli.steps import adherence, split

ALL = os.environ.get("DREAMPRM_STDLIB") == "all"
SECONDS = 1.5


def sample(rng: random.Random) -> list[Path]:
    """Shuffled; the caller stops when time is up."""
    found = corpus.files()
    rng.shuffle(found)
    return found


def test_steps_are_the_functions_that_ast_sees_wherever_the_stream_is_cut() -> None:
    rng = random.Random(random.random())  # of the seed that the run prints
    end = time.monotonic() + SECONDS
    checked = functions = 0
    for path in sample(rng):
        code = corpus.read(path)
        steps = check(code, [rng.randint(1, 4096)], [rng.randrange(len(code) + 1) for _ in range(3)])
        module = corpus.parse(code)
        if module is not None:
            assert corpus.mismatches(module, steps) == [], path
            functions += len(corpus.functions(module))
        checked += 1
        if not ALL and functions and time.monotonic() > end:  # one large table alone can take all the time
            break
    print(f"{checked} files, {functions} functions")
    assert functions > 0


def test_a_file_cut_off_still_shows_its_functions() -> None:
    """All functions but the last of a program cut anywhere are as in the whole."""
    rng = random.Random(random.random())  # of the seed that the run prints
    path = Path(os.__file__)
    code = corpus.read(path)
    whole = [step for step in split(code) if step.kind in ("function", "method")]
    for _ in range(10):
        cut = split(code[: rng.randrange(len(code))])
        functions = [step for step in cut if step.kind in ("function", "method")]
        assert functions[:-1] == whole[: len(functions) - 1 if functions else 0]


def test_adherence_counts_what_ast_counts() -> None:
    import argparse
    import ast
    import textwrap

    for module in (argparse, textwrap, os):
        code = corpus.read(Path(module.__file__))
        tree = ast.parse(code)
        scopes = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
        functions = [node for body in scopes for node in body if isinstance(node, ast.FunctionDef)]
        report = adherence(code)
        assert report.functions == len(functions)
        assert report.parses
