"""A GGUF file (github.com/ggml-org/ggml, docs/gguf.md): what it says about its model, and the weights.

The gguf package reads one too, as a numpy array for every string: for the 300,000 strings of a vocabulary that takes
seconds, here a fraction of one. Its dequantisation is used.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_STRING, _ARRAY = 8, 9  # value types
_SCALARS = "BbHhIif?  Qqd"  # struct's letter of each value type
_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """kind: a gguf.GGMLQuantizationType; shape: rows first, as in torch; data: bytes as stored."""

    kind: int
    shape: tuple[int, ...]
    data: memoryview

    def values(self) -> NDArray[np.float32]:
        """The weights, dequantised."""
        import numpy as np
        from gguf import GGMLQuantizationType, dequantize

        kind = GGMLQuantizationType(self.kind)
        stored = np.frombuffer(self.data, np.uint8)
        found = dequantize(stored.reshape(*self.shape[:-1], -1), kind)
        return np.require(found, np.float32, ["C", "W"]).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """fields: metadata by name, arrays as lists; tensors by name."""

    fields: dict[str, Any]
    tensors: dict[str, GGUFTensor]


def read_gguf(path: Path) -> GGUFFile:
    """The file, mapped into memory. Raises ValueError for one that is damaged or none, OSError."""
    from gguf import GGML_QUANT_SIZES

    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        reader = _Reader(data)
        if bytes(data[:4]) != _MAGIC:
            raise ValueError("it does not begin as one")
        if (version := reader.number("I", 4)) not in _VERSIONS:
            raise ValueError(f"version {version} is not known")
        tensors, count = reader.number("Q"), reader.number("Q")
        fields = {reader.string(): reader.value(reader.number("I")) for _ in range(count)}
        headers = []
        for _ in range(tensors):
            name = reader.string()
            sizes = [reader.number("Q") for _ in range(reader.number("I"))]
            headers.append((name, tuple(reversed(sizes)), reader.number("I"), reader.number("Q")))
        alignment = int(fields.get("general.alignment", _ALIGNMENT))
        start = -(-reader.place // alignment) * alignment
        found = {}
        for name, shape, kind, offset in headers:
            block, size = GGML_QUANT_SIZES[kind]
            elements = 1
            for one in shape:
                elements *= one
            stop = start + offset + elements // block * size
            if stop > len(data):
                raise ValueError(f"it ends before {name} does")
            found[name] = GGUFTensor(kind, shape, data[start + offset : stop])
    except (struct.error, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise ValueError(f"it is damaged ({error})") from None
    return GGUFFile(fields, found)


class _Reader:
    """Takes values from the start of a file, one after the other."""

    def __init__(self, data: memoryview) -> None:
        self._data, self.place = data, 0

    def number(self, letter: str, place: int | None = None) -> Any:
        layout = struct.Struct(f"<{letter}")
        self.place = self.place if place is None else place
        (value,) = layout.unpack_from(self._data, self.place)
        self.place += layout.size
        return value

    def string(self) -> str:
        length = self.number("Q")
        if length > len(self._data) - self.place:
            raise ValueError("it ends within a string")
        text = bytes(self._data[self.place : self.place + length]).decode("utf-8", "replace")
        self.place += length
        return text

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, count = self.number("I"), self.number("Q")
            if count > len(self._data) - self.place:
                raise ValueError("it ends within an array")
            if inner in (_STRING, _ARRAY):
                take: Callable[[], Any] = self.string if inner == _STRING else lambda: self.value(_ARRAY)
                return [take() for _ in range(count)]
            layout = struct.Struct(f"<{count}{_letter(inner)}")
            values = list(layout.unpack_from(self._data, self.place))
            self.place += layout.size
            return values
        return self.number(_letter(kind))


def _letter(kind: int) -> str:
    letter = _SCALARS[kind]
    if letter == " ":
        raise ValueError(f"a value of type {kind} is not known")
    return letter
