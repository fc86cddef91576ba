"""A program's modules, imported out of memory. Standard library only; runs in containers."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import types
from collections.abc import Mapping, Sequence


class Modules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and runs modules by their sources. Folders without an `__init__.py` are packages too."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        """sources: dotted module name -> text; a package's own text is under `NAME.__init__`."""
        self._sources = dict(sources)
        self._packages = {name.rpartition(".")[0] for name in sources if "." in name}
        self._packages |= {package[:at] for package in self._packages for at, dot in enumerate(package) if dot == "."}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._sources and fullname not in self._packages:
            return None
        return importlib.machinery.ModuleSpec(
            fullname, self, origin=_file(fullname), is_package=fullname in self._packages
        )

    def exec_module(self, module: types.ModuleType) -> None:
        name = module.__name__
        text = self._sources.get(f"{name}.__init__" if name in self._packages else name, "")
        module.__file__ = _file(name)
        exec(
            compile(text.encode("utf-8", "surrogatepass"), module.__file__, "exec", dont_inherit=True), module.__dict__
        )


def _compiled(name: str, text: str) -> types.CodeType:
    return compile(text.encode("utf-8", "surrogatepass"), _file(name), "exec", dont_inherit=True)


def _file(name: str) -> str:
    return f"{name.replace('.', '/')}.py"


def install(sources: Mapping[str, str], data: Mapping[str, bytes]) -> None:
    """Make the modules importable and write the other files below the working folder.

    Raises SyntaxError, ValueError or the like for a text that does not compile.
    """
    for name, text in sources.items():
        _compiled(name, text)
        sys.modules.pop(name, None)
    for path, content in data.items():
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    sys.meta_path.insert(0, Modules(sources))
