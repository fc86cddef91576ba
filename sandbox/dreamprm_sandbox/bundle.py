"""Modules of ours as one text to be sent to a container, whose image holds none."""

from __future__ import annotations

import inspect
from types import ModuleType

from dreamprm_sandbox import load
from dreamprm_sandbox.submission import Files


def bundle(*modules: ModuleType, main: str) -> str:
    """The modules, in the order they import each other, as one program whose `main` is `main` (`module.function`)."""
    lines = [
        "import sys, types",
        "package = sys.modules['dreamprm_sandbox']",
        "def define(name, source):",
        "    module = sys.modules['dreamprm_sandbox.' + name] = types.ModuleType('dreamprm_sandbox.' + name)",
        "    setattr(package, name, module)",
        "    exec(compile(source, name + '.py', 'exec'), module.__dict__)",
    ]
    lines += [f"define({one.__name__.rpartition('.')[2]!r}, {inspect.getsource(one)!r})" for one in modules]
    return "\n".join([*lines, f"main = package.{main}", ""])


def beside(program: Files) -> str:
    """A line to be run before the program's main module: it makes the other files of the submission importable."""
    others = {name: text for name, text in program.sources.items() if name != program.main}
    if not others and not program.data:
        return ""
    text = f"{bundle(load, main='load.install')}\nmain({others!r}, {dict(program.data)!r})\n"
    return f"exec({text!r}, {{}})"
