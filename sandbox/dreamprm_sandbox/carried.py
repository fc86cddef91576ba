"""Values that travel between two processes as copies: plain builtin ones, a few of the standard library's, containers.

Each table says how a value is told in plain ones and made again from them. Standard library only; runs in containers.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import pathlib
import uuid
from collections.abc import Callable
from typing import Any

from dreamprm_sandbox import codec

PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict))
BASES = (int, float, complex, str, bytes, list, tuple, set, frozenset, dict)
MAX_DEPTH = 100

# Standard library values that travel as copies: type -> (to a plain value, and back).
VALUES: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    decimal.Decimal: (str, lambda text: decimal.Decimal(text[:10_000])),
    fractions.Fraction: (lambda x: (x.numerator, x.denominator), lambda pair: fractions.Fraction(*map(int, pair))),
    datetime.datetime: (datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    datetime.date: (datetime.date.isoformat, datetime.date.fromisoformat),
    datetime.time: (datetime.time.isoformat, datetime.time.fromisoformat),
    datetime.timedelta: (lambda x: (x.days, x.seconds, x.microseconds), lambda x: datetime.timedelta(*map(int, x))),
    uuid.UUID: (str, uuid.UUID),
    pathlib.PosixPath: (str, pathlib.PosixPath),
    pathlib.PurePosixPath: (str, pathlib.PurePosixPath),
    range: (lambda x: (x.start, x.stop, x.step), lambda x: range(*map(int, x))),
    slice: (lambda x: (x.start, x.stop, x.step), lambda x: slice(*x)),
    type(Ellipsis): (lambda _: None, lambda _: Ellipsis),
    type(NotImplemented): (lambda _: None, lambda _: NotImplemented),
}
VALUES_BY_NAME = {kind.__name__: (kind, back) for kind, (_, back) in VALUES.items()}
# Containers of the standard library, by the plain container that holds their content.
CONTAINERS: dict[type, Callable[[Any], Any]] = {
    collections.OrderedDict: dict,
    collections.Counter: dict,
    collections.defaultdict: dict,
    collections.deque: list,
    type({}.keys()): list,
    type({}.values()): list,
    type({}.items()): list,
}
CONTAINERS_BY_NAME: dict[str, Callable[[Any], Any]] = {
    "OrderedDict": collections.OrderedDict,
    "Counter": collections.Counter,
    "defaultdict": lambda content: collections.defaultdict(None, content),
    "deque": collections.deque,
    "dict_keys": lambda content: dict.fromkeys(content).keys(),
    "dict_values": lambda content: dict(enumerate(content)).values(),
    "dict_items": lambda content: dict(content).items(),
}


def plain(value: Any) -> bool:
    """Whether the value is made of builtin types alone, none of them a subclass."""
    stack = [value]
    seen = 0
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind not in PLAIN:
            return False
        seen += 1
        if seen > 4_000_000:  # a cycle, or beyond any cap of the codec
            return True
        if kind is dict:
            stack.extend(item)
            stack.extend(item.values())
        elif kind in (list, tuple, set, frozenset):
            stack.extend(item)
    return True


def restore(old: Any, new: Any, depth: int = 0) -> None:
    """Make containers what the call on the other side has made of its copies."""
    if type(old) is not type(new) or depth > MAX_DEPTH:
        return
    if isinstance(old, list | tuple):
        for index, (before, after) in enumerate(zip(old, new, strict=False)):
            if type(before) is type(after) and isinstance(before, list | dict | set | bytearray | tuple):
                restore(before, after, depth + 1)
                if isinstance(old, list) and not isinstance(before, tuple):
                    new[index] = before
        if isinstance(old, list):
            old[:] = new
    elif isinstance(old, dict):
        kept = {key: before for key, before in old.items() if key in new and type(before) is type(new[key])}
        for key, before in kept.items():
            if isinstance(before, list | dict | set | bytearray):
                restore(before, new[key], depth + 1)
                new[key] = before
        old.clear()
        old.update(new)
    elif isinstance(old, set):
        old.clear()
        old.update(new)
    elif isinstance(old, bytearray):
        old[:] = new


def mutable(value: Any) -> bool:
    """Whether a list, dict, set or bytearray is among the arguments."""
    args, kwargs = value
    stack = [*args, *kwargs.values()]
    while stack:
        item = stack.pop()
        if isinstance(item, list | dict | set | bytearray):
            return True
        if type(item) in (tuple, frozenset):
            stack.extend(item)
    return False


def content_of(base: Any, value: Any) -> Any:
    """The plain value that an object of a subclass holds."""
    if base is dict:
        return dict(dict.items(value))
    if base in (list, tuple, set, frozenset):
        return base(base.__iter__(value))
    return codec.decode(codec.encode(value))


def holding(base: Any, kind: Any, content: Any) -> Any:
    """An object of `kind`, a subclass of `base`, with the content of a plain value."""
    if base in (list, set, dict):
        made = base.__new__(kind)
        base.__init__(made, content)
        return made
    return base.__new__(kind, content)
