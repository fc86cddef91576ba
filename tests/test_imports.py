"""The rooms depend on each other in one direction, and nothing heavy is imported before it is needed."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = (
    "torch", "transformers", "llama_cpp", "vllm", "docker", "openai", "numpy", "huggingface_hub", "tree_sitter",
    "matplotlib", "ray",
)  # fmt: skip

# A room may import rooms of its own layer or below (design: app -> view, solve -> prm, policy, steps -> values).
VALUES = {"types", "errors", "events", "training", "config"}
CORE = VALUES | {"prompts", "aggregate", "steps", "fence", "models"}
ENGINES = CORE | {"policy", "prm", "problem", "store"}
ALLOWED = {
    **dict.fromkeys(VALUES, VALUES),
    **dict.fromkeys({"prompts", "aggregate", "steps", "fence", "models"}, CORE),
    **dict.fromkeys({"policy", "prm", "problem", "store"}, ENGINES),
    "view": CORE | {"view", "doctor"},
    "solve": ENGINES | {"solve"},
}


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, in functions too; not those for type checking only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("dreamprm_cli.")}


def test_rooms_import_only_their_own_layer_and_those_below():
    wrong = []
    for path in sorted((ROOT / "dreamprm_cli").rglob("*.py")):
        room = path.relative_to(ROOT / "dreamprm_cli").parts[0].removesuffix(".py")
        known = {p.name.removesuffix(".py") for p in (ROOT / "dreamprm_cli").iterdir()}
        if room in ALLOWED:
            wrong += [f"{path.name} -> {other}" for other in (rooms(path) & known) - ALLOWED[room]]
    assert wrong == []


@pytest.mark.parametrize("package", ["dreamprm_cli", "sandbox/dreamprm_sandbox"])
def test_core_and_sandbox_know_nothing_of_training(package):
    # The app may import the trainer, inside its commands.
    files = [p for p in (ROOT / package).rglob("*.py") if not p.stem.endswith("app")]
    assert files
    assert [p.name for p in files if any(name.startswith("dreamprm_trainer") for name in imports(p))] == []


def test_the_sandbox_depends_on_values_only():
    files = list((ROOT / "sandbox" / "dreamprm_sandbox").rglob("*.py"))
    assert files
    assert set().union(*(rooms(path) for path in files)) <= {"types", "errors"}


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["solve", "--help"], ["bench", "--help"], ["train", "fit", "--help"]]
)
def test_help_and_version_import_nothing_heavy(arguments):
    program = (
        "import sys\n"
        f"sys.argv = ['dreamprm', *{arguments!r}]\n"
        "from dreamprm_cli.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"loaded = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"}
    )
    assert done.returncode == 0, done.stderr
    assert "dreamprm" in done.stdout


@pytest.mark.parametrize(("settings", "told"), [({}, "1000"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "None")])
def test_openmp_is_told_how_long_to_spin_before_torch_reads_it(settings, told):
    """torch looks once, when it is loaded: a scorer whose threads spin starves every other program."""
    script = """
import os, sys

class Told:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))
            sys.exit()

sys.meta_path.insert(0, Told())
from dreamprm_cli.prm.open import open_packed
open_packed("small")
"""
    plain = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**plain, **settings})
    assert done.stdout.strip() == told, done.stderr
