"""llama.cpp for those who drive it, policy and PRM: its C functions, models, batches, and how many threads to take."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_silencer: Any = None  # llama.cpp keeps a pointer to it


def library() -> Any:
    """llama_cpp's C functions, loaded once and silenced. Raises ImportError when a package is missing."""
    import llama_cpp.llama_cpp as lib
    import numpy  # noqa: F401

    global _silencer
    if _silencer is None:
        _silencer = lib.llama_log_callback(lambda level, text, data: None)
        lib.llama_log_set(_silencer, None)
        lib.llama_backend_init()
    return lib


def load_model(lib: Any, path: Path) -> Any:
    """The model in a GGUF file, for `llama_model_free`; None when this llama.cpp cannot load it."""
    settings = lib.llama_model_default_params()
    if b"AMX_INT8 = 1" in lib.llama_print_system_info():
        # Weights laid out for AMX go to kernels that can die of an illegal instruction (ggml-org/llama.cpp#26954).
        settings.use_extra_bufts = False
    return lib.llama_model_load_from_file(os.fsencode(path), settings) or None


class Batch:
    """llama_batch over arrays that Python owns, one sequence per token."""

    def __init__(self, lib: Any, rows: int) -> None:
        self._lib = lib
        self._tokens = (ctypes.c_int32 * rows)()
        self._positions = (ctypes.c_int32 * rows)()
        self._counts = (ctypes.c_int32 * rows)(*[1] * rows)
        self._sequences = [(ctypes.c_int32 * 1)() for _ in range(rows)]
        self._pointers = (ctypes.POINTER(ctypes.c_int32) * rows)(
            *[ctypes.cast(s, ctypes.POINTER(ctypes.c_int32)) for s in self._sequences]
        )
        self._wanted = (ctypes.c_int8 * rows)()

    def put(self, row: int, token: int, position: int, sequence: int, output: bool = True) -> None:
        """output: whether the model's last layer is to give this token's state, or logits."""
        self._tokens[row], self._positions[row], self._wanted[row] = token, position, output
        self._sequences[row][0] = sequence

    def fill(self, tokens: Sequence[int], position: int, sequence: int, outputs: Sequence[int] = ()) -> Any:
        """The C struct over `tokens`, consecutive from `position`; outputs: the rows that are wanted."""
        wanted = set(outputs)
        for row, token in enumerate(tokens):
            self.put(row, token, position + row, sequence, row in wanted)
        return self.upto(len(tokens))

    def upto(self, rows: int) -> Any:
        """The C struct over the first `rows` rows."""
        return self._lib.llama_batch(
            n_tokens=rows,
            token=self._tokens,
            embd=None,
            pos=self._positions,
            n_seq_id=self._counts,
            seq_id=self._pointers,
            logits=self._wanted,
        )


def physical_cores() -> int:
    """Cores this process may use, at least 1; on Linux hyper-threads count once and a container's quota holds."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = {
        _read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu)
        for cpu in os.sched_getaffinity(0)
    }
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    allowed = math.ceil(int(quota) / int(period)) if quota.isdigit() and period.isdigit() else len(cores)
    return max(1, min(len(cores), allowed))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""
