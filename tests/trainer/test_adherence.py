import json

import pytest

from dreamprm_cli.errors import ProblemError
from dreamprm_trainer.adherence import read, report

CHAIN = 'def f():\n    """F."""\n    return 1\n\n\ndef g():\n    """G."""\n    return f()\n'
NESTED = "def f():\n    def g():\n        pass\n    return g\n\nprint(f())\n"


def test_shares_over_a_pool():
    found = report([("a", CHAIN), ("a", NESTED), ("b", "def f(:\n"), ("b", "x = 1\n")])
    assert found["programs"] == 4
    assert found["verdicts"] == {"chain": 0.25, "loose": 0, "single": 0.25, "none": 0.25, "broken": 0.25}
    assert found["functions"] == {"0": 1, "1": 2, "2": 1}
    assert found["functions_mean"] == 1
    assert found["documented"] == 0.5
    assert (found["nested"], found["module_code"], found["broken"]) == (0.25, 0.25, 0.25)
    assert found["by_model"]["a"]["verdicts"]["chain"] == 0.5
    assert report([("", "x = 1\n")])["documented"] is None
    assert "by_model" not in report([("a", CHAIN), ("a", NESTED)])


def test_any_pool_is_read_without_its_problems(tmp_path):
    path = tmp_path / "pool.jsonl"
    path.write_text(json.dumps([{"question_id": "1", "code_list": [CHAIN, "x"]}, {"task_id": "2", "completion": "y"}]))
    assert read(path) == [("", CHAIN), ("", "x"), ("", "y")]
    for rows, said in (("", "no programs"), ('{"task_id": "1"}', "no program"), ('{"solution": 3}', "no program")):
        path.write_text(rows)
        with pytest.raises(ProblemError, match=said):
            read(path)
