"""What a container runs when it starts: programs that are sent to it, for its image holds no code of ours."""

from __future__ import annotations

import inspect

from dreamprm_sandbox import cgroup, codec, harden, proof, rehearsal, relay, runner, zygote

_MODULES = (codec, cgroup, proof, runner, rehearsal, relay, zygote)  # in the order they import each other
# Reads one program from standard input, byte by byte no further than its end, and runs it.
BOOT = (
    "import os\n"
    "def take(n):\n"
    "    b = b''\n"
    "    while len(b) < n:\n"
    "        p = os.read(0, n - len(b))\n"
    "        if not p: os._exit(0)\n"
    "        b += p\n"
    "    return b\n"
    "exec(compile(take(int.from_bytes(take(4), 'big')), 'boot.py', 'exec'))\n"
)
PYTHON = ["/usr/bin/python3", "-P", "-s", "-c"]
# What PID 1 runs first: the call filter, and the compiler. Both need a good deal of memory, which every candidate
# would carry as copied page tables; hence a fresh interpreter after it, which is handed the compiled modules.
_FIRST = """
import marshal, os
try:
    refuse_calls()
except OSError:
    pass  # the proof finds out, and says what is missing
codes = [(name, compile(source, name + ".py", "exec", dont_inherit=True)) for name, source in {sources!r}]
file = os.memfd_create("zygote", 0)
with open(file, "wb", closefd=False) as opened:
    marshal.dump(codes, opened)
os.execv({python[0]!r}, [*{python!r}, f"file = {{file}}" + {second!r}])
"""
_SECOND = """
import marshal, os, sys, types
os.lseek(file, 0, 0)
with open(file, "rb") as opened:
    codes = marshal.load(opened)
package = sys.modules["dreamprm_sandbox"] = types.ModuleType("dreamprm_sandbox")
package.__path__ = []
for name, code in codes:
    module = sys.modules["dreamprm_sandbox." + name] = types.ModuleType("dreamprm_sandbox." + name)
    setattr(package, name, module)
    exec(code, module.__dict__)
del codes, code
package.zygote.main({memory_bytes})
"""


def program(memory_bytes: int) -> bytes:
    """What PID 1 runs, after its length. The image holds no code of ours."""
    sources = [(module.__name__.rpartition(".")[2], inspect.getsource(module)) for module in _MODULES]
    second = _SECOND.format(memory_bytes=memory_bytes)
    first = inspect.getsource(harden) + _FIRST.format(sources=sources, python=PYTHON, second=second)
    data = first.encode()
    return len(data).to_bytes(4, "big") + data
