"""A small label run: scripted programs and rollouts, judged by the real sandbox. `python scripted_labels.py FOLDER`."""

import sys
from concurrent.futures import Future
from pathlib import Path

from dreamprm_cli.policy import Sampling
from dreamprm_cli.policy.scripted import ScriptedPolicy
from dreamprm_cli.types import Problem, Tests
from dreamprm_trainer.continuation import Streamed
from dreamprm_trainer.journal import write_rows
from dreamprm_trainer.judge import Judge
from dreamprm_trainer.label import grade_programs, roll_out_programs, sample_programs, step_data
from dreamprm_trainer.rollouts import Plan

PROGRAM = (
    'def double(x):\n    """Twice x."""\n    return 2 * x\n\n\n'
    'def f(x):\n    """Four times x."""\n    return double(double(x))\n\n\nprint(f(1))\n'
)
TESTS = [{"input": [n], "output": 4 * n} for n in (1, 3)]
PROBLEM = Problem("P", "Four times x.", entry_point="f", tests=Tests("plain", payload={"tests": TESTS}))
ENDS = [
    "def f(x):\n    return double(double(x))\n",
    "def f(x):\n    return 3 * x\n",
    "def f(x):\n    return 4 * x\n",
    "def f(x):\n    return x\n",
    "def f(x):\n    return double(x) + double(x)  # of course\n",
]


class Policy(ScriptedPolicy):
    """Whole programs from nothing; from a prefix, one of several ends."""

    def stream(self, prompt, indices, sampling):
        self._texts = tuple(ENDS) if "def double" in prompt.prefill else (PROGRAM,)
        return super().stream(prompt, indices, sampling)


def policy(pause_s=0.0):
    return Policy([PROGRAM], chunk=16, pause_s=pause_s)


class Judging:
    """A judge that says yes at once."""

    def ask(self, task_id, code):
        future = Future()
        future.set_result({"passed": True, "status": "PASS", "tests_passed": 1, "tests_total": 1})
        return future


def main(folder: Path) -> None:
    from dreamprm_sandbox import Sandbox

    writer, known = Streamed(policy(0.01)), {"P": PROBLEM}
    programs = sample_programs([PROBLEM], writer, 2, Sampling(), folder, lambda progress: None)
    with Sandbox(1) as box, Judge(known, folder / "verdicts.jsonl", box.run) as judge:
        graded = grade_programs(programs, judge, lambda progress: None)
        rows = roll_out_programs(graded, known, writer, judge, Plan(), Sampling(), folder, lambda progress: None)
    write_rows([step_data(row, PROBLEM) for row in rows], folder / "labels.jsonl")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
