"""Plain values as bytes, and back: the only thing a candidate can say about a result.

Covered: None, bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict, nested.
A subclass is collapsed to its base (an `int` that overrides `__eq__` arrives as an int). Anything else
arrives as `Opaque`, which no comparison accepts.
Not covered: identity, cycles, sharing. Depth, size and number of values are capped on both sides.

This module runs on the host and, alone, in the container: standard library only. The names it needs are
bound when it is imported, before any candidate code runs.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection
from typing import Any

MAX_DEPTH = 128
MAX_BYTES = 32 << 20
MAX_NODES = 2 << 20
# More equal hashes than this in one set or dict is an attack on the reader's time, not a result.
MAX_SAME_HASH = 256

_pack, _unpack_from = struct.Struct("!I").pack, struct.Struct("!I").unpack_from
_type, _len, _hex, _float_hex, _complex = type, len, hex, float.hex, complex
_mro = type.__dict__["__mro__"].__get__
_name = type.__dict__["__name__"].__get__
_iter_list, _iter_tuple, _iter_set, _iter_frozenset = list.__iter__, tuple.__iter__, set.__iter__, frozenset.__iter__
_items, _encode_str, _list, _bytes, _bytearray = dict.items, str.encode, list, bytes, bytearray
_real, _imag = complex.real.__get__, complex.imag.__get__
_BASES = (int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict)
_extend, _pop = list.extend, list.pop


class CodecError(ValueError):
    """Bytes that no honest encoder wrote, or a value beyond the caps."""


class TooLarge(CodecError):
    """The value is beyond the caps on size, count or depth."""


class Opaque:
    """Stands for a value that is not made of plain builtin types. Equal to nothing but itself."""

    __slots__ = ("type_name",)

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __repr__(self) -> str:
        return f"<{self.type_name} object>"


def encode(value: Any, max_bytes: int = MAX_BYTES, max_nodes: int = MAX_NODES) -> bytes:
    """The value as bytes. Calls no method that the value's class could override. Raises TooLarge beyond the caps."""
    out = _bytearray()
    stack: list[tuple[Any, int]] = [(value, 0)]  # (value, depth), last is next
    nodes = 0

    def children(tag: bytes, items: list[Any], depth: int, count: int) -> None:
        if nodes + _len(items) > max_nodes:
            raise TooLarge("value beyond the cap on count")
        out.extend(tag + _pack(count))
        items.reverse()
        _extend(stack, [(item, depth + 1) for item in items])

    while stack:
        item, depth = _pop(stack)
        nodes += 1
        if depth > MAX_DEPTH or nodes > max_nodes or _len(out) > max_bytes:
            raise TooLarge("value beyond the caps on depth, count or size")
        kind: Any = _type(item)
        for _ in (1, 2):  # a second time with the base of a subclass
            if kind is int:
                _put(out, b"i", _encode_str(_hex(item), "ascii"))
            elif kind is str:
                _put(out, b"s", _encode_str(item, "utf-8", "surrogatepass"))
            elif kind is float:
                _put(out, b"f", _encode_str(_float_hex(item), "ascii"))
            elif item is None:
                out += b"N"
            elif kind is bool:
                out += b"T" if item else b"F"
            elif kind is list:
                children(b"l", items := _list(_iter_list(item)), depth, _len(items))
            elif kind is tuple:
                children(b"t", items := _list(_iter_tuple(item)), depth, _len(items))
            elif kind is dict:
                flat: list[Any] = []
                for pair in _items(item):
                    _extend(flat, pair)
                children(b"d", flat, depth, _len(flat) // 2)
            elif kind is set:
                children(b"e", items := _list(_iter_set(item)), depth, _len(items))
            elif kind is frozenset:
                children(b"E", items := _list(_iter_frozenset(item)), depth, _len(items))
            elif kind is bytes:
                _put(out, b"b", item)
            elif kind is bytearray:
                _put(out, b"B", item)
            elif kind is complex:
                out += b"c"
                _put(out, b"f", _encode_str(_float_hex(_real(item)), "ascii"))
                _put(out, b"f", _encode_str(_float_hex(_imag(item)), "ascii"))
            else:
                base = _builtin_base(kind)
                if base is not None:
                    kind = base
                    continue
                _put(out, b"o", _encode_str(_name(kind)[:100], "utf-8", "surrogatepass"))
            break
    if _len(out) > max_bytes:
        raise TooLarge("value beyond the cap on size")
    return _bytes(out)


def _builtin_base(kind: Any) -> Any:
    """By identity: a hostile metaclass can make its class equal to `int`, but not be it."""
    for base in _mro(kind):
        for builtin in _BASES:
            if base is builtin:
                return builtin
    return None


def _put(out: bytearray, tag: bytes, data: bytes) -> None:
    out += tag
    out += _pack(_len(data))
    out += data


def decode(data: bytes, max_nodes: int = MAX_NODES) -> Any:
    """The value of `encode`'s bytes. Any other bytes raise CodecError: never another exception, never a hang."""
    reader = _Reader(data, max_nodes)
    try:
        value = reader.value(0)
    except (ValueError, struct.error, TypeError, OverflowError, IndexError) as error:
        raise error if isinstance(error, CodecError) else CodecError(str(error)) from None
    if reader.at != len(data):
        raise CodecError("bytes after the value")
    return value


class _Reader:
    def __init__(self, data: bytes, max_nodes: int) -> None:
        self.data = data
        self.at = 0
        self.nodes_left = max_nodes

    def value(self, depth: int) -> Any:
        self.nodes_left -= 1
        if depth > MAX_DEPTH or self.nodes_left < 0:
            raise TooLarge("value beyond the caps on depth or count")
        tag = self.data[self.at]
        self.at += 1
        if tag == 0x4E:  # N
            return None
        if tag == 0x54:  # T
            return True
        if tag == 0x46:  # F
            return False
        if tag == 0x69:  # i
            return _int(self.bytes())
        if tag == 0x66:  # f
            return float.fromhex(self.bytes().decode("ascii"))
        if tag == 0x73:  # s
            return self.bytes().decode("utf-8", "surrogatepass")
        if tag == 0x6C:  # l
            return self.items(depth)
        if tag == 0x74:  # t
            return tuple(self.items(depth))
        if tag == 0x64:  # d
            count = self.count(2)
            pairs = [(self.value(depth + 1), self.value(depth + 1)) for _ in range(count)]
            check_hashes([key for key, _ in pairs])
            return dict(pairs)
        if tag in (0x65, 0x45):  # e, E
            items = self.items(depth)
            check_hashes(items)
            return set(items) if tag == 0x65 else frozenset(items)
        if tag == 0x62:  # b
            return self.bytes()
        if tag == 0x42:  # B
            return bytearray(self.bytes())
        if tag == 0x63:  # c
            real, imag = self.value(depth + 1), self.value(depth + 1)
            if type(real) is not float or type(imag) is not float:
                raise CodecError("a complex number needs two floats")
            return complex(real, imag)
        if tag == 0x6F:  # o
            return Opaque(self.bytes().decode("utf-8", "surrogatepass"))
        raise CodecError(f"unknown tag {tag:#x}")

    def items(self, depth: int) -> list[Any]:
        return [self.value(depth + 1) for _ in range(self.count(1))]

    def count(self, values_each: int) -> int:
        (count,) = _unpack_from(self.data, self.at)
        self.at += 4
        if count * values_each > len(self.data) - self.at:  # a value takes a byte or more
            raise CodecError("more items than bytes")
        return int(count)

    def bytes(self) -> bytes:
        (size,) = _unpack_from(self.data, self.at)
        start = self.at + 4
        self.at = start + size
        if self.at > len(self.data):
            raise CodecError("cut off")
        return self.data[start : self.at]


def _int(text: bytes) -> int:
    digits = text[1:] if text[:1] == b"-" else text
    if digits[:2] != b"0x" or not digits[2:].isalnum():
        raise CodecError("not an int in hex")
    return int(text, 16)


def check_hashes(items: Collection[Any]) -> None:
    """Raises TooLarge for items chosen to collide: a set of them would take the square of their number to build."""
    if len(items) > MAX_SAME_HASH:
        same = Counter(map(hash, items)).most_common(1)[0][1]
        if same > MAX_SAME_HASH:
            raise TooLarge("too many equal hashes")
