"""The tests' side of the line: what it asks of a program that may lie, and what it lends it. Runs in the judge's
container. Standard library only."""

from __future__ import annotations

import collections
import io
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from dreamprm_sandbox import codec
from dreamprm_sandbox.carried import BASES, plain
from dreamprm_sandbox.remote import (
    ARITHMETIC,
    DUNDERS,
    ITEMS,
    ORDER,
    Broken,
    NotCarried,
    Peer,
    is_remote,
    number_of,
    operated,
    words,
)

# Methods of plain values that take what a result is compared with.
_TELLING = words(
    "count index find rfind rindex startswith endswith issubset issuperset isdisjoint difference intersection "
    "symmetric_difference"
)
TEST_MODULES: set[str] = set()  # whose classes' objects may be lent; filled by the judge


class Judge(Peer):
    """The side of the tests, which does not trust the other."""

    def __init__(self, send: Callable[[Any], None], receive: Callable[[], Any]) -> None:
        super().__init__(send, receive)
        self.trouble = ""  # the first thing that could not be carried
        self.broken = ""  # the first thing that no honest program sends
        self._made: set[int] = set()  # objects the tests made themselves, by calling a class
        self._methods: dict[int, tuple[int, str]] = {}  # handle of a bound method -> (its object, its name)
        self._modules: set[int] = set()
        # Lists and the like that were attributes of an object: (object, attribute, copy, its bytes then).
        self._attributes: collections.deque[tuple[int, str, Any, bytes]] = collections.deque(maxlen=8)

    def refuse(self, why: str) -> NotCarried:
        self.trouble = self.trouble or why
        return NotCarried(why)

    def request(self, op: str, target: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.broken or self.trouble:
            raise NotCarried("stopped")
        try:
            if not self._answering:
                self._write_back()
            value = super().request(op, target, args, kwargs)
        except Broken as error:
            self.broken = self.broken or str(error)
            raise NotCarried("stopped") from None
        except NotCarried as error:
            raise self.refuse(str(error)) from None
        if op == "make" and is_remote(value):
            self._made.add(number_of(value))
        return value

    def _write_back(self) -> None:
        """What the tests did to a list that is an attribute of the program's object is done to that one too."""
        for index, (number, name, value, then) in enumerate(self._attributes):
            now = codec.encode(self.pack(value))
            if now != then:
                self._attributes[index] = (number, name, value, now)
                super().request("update", number, (name, value), {})

    def module(self, name: str) -> Any:
        """The program's module of that name, loaded over there. Raises what loading it raises."""
        found = self.request("import", -1, (name,), {})
        if not is_remote(found):
            self.broken = "not a module"
            raise NotCarried("stopped")
        self._modules.add(number_of(found))
        return found

    def get(self, thing: Any, name: str) -> Any:
        value = super().get(thing, name)
        if is_remote(value) and not isinstance(thing, type) and number_of(thing) not in self._modules:
            self._methods[number_of(value)] = (number_of(thing), name)
        if type(value) in (list, dict, set, bytearray) and len(data := codec.encode(self.pack(value))) < 1 << 16:
            self._attributes.append((number_of(thing), name, value, data))
        return value

    def operate(self, thing: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        number = number_of(thing)
        made = number in self._made
        kind = type(thing).__name__
        if name == "__call__":
            owner, method = self._methods.get(number, (number, ""))
            if method in _TELLING and (args or kwargs) and owner not in self._made:
                raise self.refuse(f"'{method}' shows an object that the program returned what it is compared with")
        elif name in ORDER or name in ITEMS:
            if not made or (name in ORDER and not (is_remote(args[0]) and number_of(args[0]) in self._made)):
                raise self.refuse(f"{_spoken(name)} on a {kind!r} of the program would let it judge itself")
        elif name in ARITHMETIC and not made and not is_remote(args[0]):
            raise self.refuse(f"{_spoken(name)} on a {kind!r} that the program returned would let it judge itself")
        return super().operate(thing, name, args, kwargs)

    def equal(self, thing: Any, other: object) -> bool:
        if thing is other or other is None:
            return thing is other
        if is_remote(other) and not type.__getattribute__(type(thing), "_remote_equality"):
            return False  # identity is all there is
        raise self.refuse(
            f"whether a {type(thing).__name__!r} of the program equals something, only the program could say: "
            "compare plain values, such as its attributes"
        )

    def hash(self, thing: Any) -> int:
        if type.__getattribute__(type(thing), "_remote_equality"):
            raise self.refuse(f"a {type(thing).__name__!r} with an equality of its own cannot be a key")
        return super().hash(thing)

    def _node(self, value: Any, depth: int) -> Any:
        """Files stay on this side; what is neither a value nor something to be used is not lent."""
        path = str(value) if isinstance(value, pathlib.PurePath) else value
        if isinstance(path, str) and path.startswith("/tmp/") and pathlib.Path(path).exists():
            raise self.refuse("files that a test makes do not travel to the program")
        return super()._node(value, depth)

    def pack(self, value: Any) -> Any:
        if plain(value) and not _holds_path(value):
            return 0, value
        return 1, self._node(value, 0)

    def _proxy(self, number: int, kind: Any, names: tuple[str, str], held: Any, depth: int) -> Any:
        if isinstance(kind, tuple) and kind[:1] == ("c",) and kind[2:3] == ("coroutine",):
            return self._coroutine(number)
        return super()._proxy(number, kind, names, held, depth)

    async def _coroutine(self, number: int) -> Any:
        """Runs to its end over there when it is awaited here."""
        return self.request("await", number, (), {})

    def _handle(self, value: Any, depth: int) -> Any:
        if not (callable(value) or _iterating(value) or _usable(value) or isinstance(value, BASES)):
            raise self.refuse(f"a {type(value).__name__!r} cannot be handed to the program")
        return super()._handle(value, depth)

    def _do(self, op: str, thing: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        match op, args:
            case "input", (str() as prompt,):
                return input(prompt)
            case "line", ():
                return sys.stdin.readline()
            case "call", _ if callable(thing) and not isinstance(thing, type):
                return thing(*args, **kwargs)
            case "op", ("__iter__" | "__next__" | "__len__" | "__length_hint__",) if _iterating(thing):
                return operated(thing, str(args[0]), [], kwargs)
            case "get", (str() as name,) if _usable(thing) and not name.startswith("_") and _shown(thing, name):
                return getattr(thing, name)
            case "set", (str() as name, value) if _usable(thing) and not name.startswith("_"):
                if not callable(value) and not hasattr(type(thing), name):
                    return setattr(thing, name, value)
            case "op", (str() as name, *rest) if _usable(thing) and name in DUNDERS:
                return operated(thing, name, rest, kwargs)
        raise AttributeError(f"the tests do not lend {args[0] if args else op!r}")

    def show(self, printed: Any) -> None:
        match printed:
            case (str() as out, str() as err):
                sys.stdout.write(out)
                sys.stderr.write(err)
            case _:
                raise Broken("not output")


def _spoken(name: str) -> str:
    return f"'{name.strip('_')}'"


def _holds_path(value: Any) -> bool:
    """Whether a text in it may name a file of the tests."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if item.startswith("/tmp/"):
                return True
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            stack.extend(item)
    return False


def _iterating(value: Any) -> bool:
    kind = type(value)
    return hasattr(kind, "__next__") and hasattr(kind, "__iter__")


def _usable(value: Any) -> bool:
    """An object of a class of the tests, a stand-in made with unittest.mock, or a stream in memory."""
    kind = type(value)
    if isinstance(value, io.StringIO | io.BytesIO) or _mocked(value):
        return True
    return kind.__flags__ & (1 << 9) != 0 and kind.__module__.partition(".")[0] in TEST_MODULES


def _mocked(value: Any) -> bool:
    mock = sys.modules.get("unittest.mock")
    return mock is not None and isinstance(value, mock.NonCallableMock)


def _shown(value: Any, name: str) -> bool:
    """The tools of a mock are the test's alone."""
    return not _mocked(value) or (name not in dir(sys.modules["unittest.mock"].Mock) and not name.startswith("assert"))
