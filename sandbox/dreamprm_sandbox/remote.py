"""Objects of one process used from another, one request at a time: tests here, the program they test there.

Both sides run this module: the judge, where the user's tests are, and the candidate's process. They never meet; the
host carries every message and knows them to be plain values. What crosses: plain builtin values and a few of the
standard library's as copies (`carried`); functions, classes, exceptions and other objects as handles; lists, dicts and
sets that a call changed are changed on the caller's side too.

What the judge asks of a candidate's object is answered by the candidate, so it may be a lie, and no lie may make a
test pass that a plain wrong value would not. Hence `guard`: an object of the candidate is equal to itself and to
nothing else, and is never shown a value that it could be compared with. What the judge lends to the candidate (a
callback, an object of a class of the tests) can be called and used by its public names, never looked into.
Standard library only; runs in containers.
"""

from __future__ import annotations

import builtins
import operator
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from dreamprm_sandbox import codec
from dreamprm_sandbox.carried import (
    BASES,
    CONTAINERS,
    CONTAINERS_BY_NAME,
    MAX_DEPTH,
    PLAIN,
    VALUES,
    VALUES_BY_NAME,
    content_of,
    holding,
    mutable,
    plain,
    restore,
)


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What an object can be asked without being shown anything.
_ASKED = words(
    "__len__ __iter__ __next__ __bool__ __int__ __float__ __complex__ __index__ __str__ __repr__ __abs__ __neg__ "
    "__pos__ __invert__ __enter__ __exit__ __reversed__ __round__ __trunc__ __ceil__ __floor__ __format__ __bytes__ "
    "__length_hint__ __call__"
)
ARITHMETIC = frozenset(
    f"__{side}{name}__"
    for name in words("add sub mul truediv floordiv mod divmod pow matmul and or xor lshift rshift")
    for side in ("", "r", "i")
)
ORDER = words("__lt__ __le__ __gt__ __ge__")
ITEMS = words("__getitem__ __setitem__ __delitem__ __contains__")
_EQUALITY = words("__eq__ __ne__")
DUNDERS = _ASKED | ARITHMETIC | ORDER | ITEMS | _EQUALITY


class NotCarried(BaseException):
    """A test does what cannot be done across processes. No test can catch it by accident, and it is always told."""


class Broken(BaseException):
    """The other side sent what no honest side sends."""


class RemoteType(type):
    """The type of classes whose objects live on the other side: calling such a class makes an object there."""

    def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> RemoteType:
        if bases and "_remote_peer" not in space:
            raise _peer_of(next(base for base in bases if isinstance(base, RemoteType))).refuse(
                f"{name!r} of the tests is derived from a class of the program"
            )
        return super().__new__(cls, name, bases, space)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return _peer_of(cls).request("make", number_of(cls), args, kwargs)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_") and name.endswith("__"):
            raise AttributeError(name)
        return _peer_of(cls).get(cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        _peer_of(cls).request("set", number_of(cls), (name, value), {})

    def __iter__(cls) -> Any:
        return _peer_of(cls).request("op", number_of(cls), ("__iter__",), {})

    def __bool__(cls) -> bool:
        return True

    def __len__(cls) -> int:
        return int(_peer_of(cls).request("op", number_of(cls), ("__len__",), {}))

    def __getitem__(cls, key: Any) -> Any:
        return _peer_of(cls).request("op", number_of(cls), ("__getitem__", key), {})


class Remote(metaclass=RemoteType):
    """An object of the other side."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return _peer_of(self).get(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _peer_of(self).request("set", number_of(self), (name, value), {})

    def __delattr__(self, name: str) -> None:
        _peer_of(self).request("del", number_of(self), (name,), {})

    def __eq__(self, other: object) -> bool:
        return _peer_of(self).equal(self, other)

    def __ne__(self, other: object) -> bool:
        return not _peer_of(self).equal(self, other)

    def __hash__(self) -> int:
        return _peer_of(self).hash(self)

    def __dir__(self) -> list[str]:
        return [str(name) for name in _peer_of(self).request("names", number_of(self), (), {})]


def _peer_of(thing: Any) -> Peer:
    peer: Peer = (type.__getattribute__ if isinstance(thing, type) else object.__getattribute__)(thing, "_remote_peer")
    return peer


def number_of(thing: Any) -> int:
    return int((type.__getattribute__ if isinstance(thing, type) else object.__getattribute__)(thing, "_remote_number"))


def is_remote(value: Any) -> bool:
    return issubclass(type(value), Remote) or issubclass(type(value), RemoteType)


def _relay(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _peer_of(self).operate(self, name, args, kwargs)

    method.__name__ = name
    return method


class Peer:
    """One side. `send` and `receive` carry plain values; `request` asks and, while it waits, answers."""

    def __init__(self, send: Callable[[Any], None], receive: Callable[[], Any]) -> None:
        self._send, self._receive = send, receive
        self._lock = threading.RLock()
        self._lent: list[Any] = []  # objects the other side has handles of, by number
        self._numbers: dict[int, int] = {}  # id -> number; `_lent` keeps them alive
        self._proxies: dict[int, Any] = {}
        self._classes: dict[int, type] = {}
        self._answering = 0

    def refuse(self, why: str) -> NotCarried:
        return NotCarried(why)

    # What goes out.

    def pack(self, value: Any) -> Any:
        return (0, value) if plain(value) else (1, self._node(value, 0))

    def _node(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if depth > MAX_DEPTH:
            raise NotCarried("a value is nested too deeply, or holds itself")
        if kind in PLAIN:
            if kind is dict:
                return "d", [(self._node(key, depth + 1), self._node(item, depth + 1)) for key, item in value.items()]
            if kind in (list, tuple, set, frozenset):
                return kind.__name__[0] if kind is not frozenset else "E", self._nodes(value, depth)
            return "v", value
        if is_remote(value):
            return "m", number_of(value)
        if kind in VALUES:
            return "V", kind.__name__, VALUES[kind][0](value)
        if kind in CONTAINERS:
            return "C", kind.__name__, self._node(CONTAINERS[kind](value), depth + 1)
        if isinstance(value, type):
            return self._class(value, depth + 1)
        if isinstance(value, BaseException):
            return self._exception(value, depth + 1)
        return self._handle(value, depth)

    def _nodes(self, values: Any, depth: int) -> list[Any]:
        return [self._node(value, depth + 1) for value in values]

    def _handle(self, value: Any, depth: int) -> Any:
        """("h", number, class, (name, docstring), plain content): an object that stays here."""
        name = getattr(value, "__name__", "") if callable(value) or isinstance(value, types.ModuleType) else ""
        content = next((base for base in BASES if isinstance(value, base)), None)
        held = None if content is None else self._node(content_of(content, value), depth + 1)
        doc = str(value.__doc__ or "")[:10_000] if isinstance(value, types.FunctionType | types.MethodType) else ""
        return "h", self.number(value), self._class(type(value), depth + 1), (str(name)[:100], doc), held

    def _class(self, kind: type, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise NotCarried("a class has too many ancestors")
        if getattr(builtins, kind.__name__, None) is kind:
            return "b", kind.__name__
        if kind.__module__.partition(".")[0] in sys.stdlib_module_names and issubclass(kind, BaseException):
            return "i", kind.__module__, kind.__qualname__
        bases = [self._class(base, depth + 1) for base in kind.__bases__ if _telling(base)]
        dunders = sorted(name for name in DUNDERS if _defines(kind, name))
        return "c", self.number(kind), str(kind.__name__)[:100], dunders, bases

    def _exception(self, error: BaseException, depth: int) -> Any:
        """("x", number, class, arguments, text)"""
        arguments = BaseException.__dict__["args"].__get__(error)
        if isinstance(error, OSError) and error.filename is not None:
            arguments = (*arguments[:2], error.filename)
        nodes = self._nodes(arguments, depth)
        return "x", self.number(error), self._class(type(error), depth), nodes, str(error)[:10_000]

    def number(self, value: Any) -> int:
        found = self._numbers.get(id(value))
        if found is None:
            found = self._numbers[id(value)] = len(self._lent)
            self._lent.append(value)
        return found

    # What comes in. Nothing is believed: whatever is not as `pack` makes it is Broken.

    def unpack(self, packed: Any) -> Any:
        try:
            form, content = packed
            return content if form == 0 else self._value(content, 0)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise Broken(f"not a value: {error}") from None

    def _value(self, node: Any, depth: int) -> Any:
        if depth > 4 * MAX_DEPTH:
            raise Broken("nested too deeply")
        match node:
            case ("v", value):
                return value
            case ("l" | "t" | "s" | "E" as tag, list() as items):
                found = [self._value(item, depth + 1) for item in items]
                return {"l": list, "t": tuple, "s": set, "E": frozenset}[tag](found)
            case ("d", list() as pairs):
                return {self._value(key, depth + 1): self._value(item, depth + 1) for key, item in pairs}
            case ("m", int() as number) if number >= 0:
                return self._lent[number]
            case ("V", str() as name, content):
                return VALUES_BY_NAME[name][1](content)
            case ("C", str() as name, content):
                return CONTAINERS_BY_NAME[name](self._value(content, depth + 1))
            case ("b" | "i" | "c", *_):
                return self._known_class(node, depth)
            case ("x", int() as number, kind, list() as arguments, str() as text):
                return self._raised(number, self._known_class(kind, depth + 1), arguments, text, depth)
            case ("h", int() as number, kind, (str() as name, str() as doc), held):
                return self._proxy(number, kind, (name, doc), held, depth)
        raise Broken("not a value")

    def _proxy(self, number: int, kind: Any, names: tuple[str, str], held: Any, depth: int) -> Any:
        known = self._proxies.get(number)
        if known is not None and held is None:
            return known
        its_class = self._known_class(kind, depth + 1)
        if not issubclass(its_class, Remote):  # a function, a generator ...: of a builtin class
            its_class = self._class_of(-1 - number, its_class.__name__, sorted(DUNDERS - _EQUALITY), [], 0)
        if held is not None:
            content = self._value(held, depth + 1)
            base = type(content)
            if base not in BASES:
                raise Broken("not the content of a plain value")
            identity = {"_remote_peer": self, "_remote_number": number_of(its_class)}
            mixed = RemoteType(its_class.__name__, (base, its_class), identity)
            made = holding(base, mixed, content)
        else:
            made = object.__new__(its_class)
        self._mark(made, number, names)
        self._proxies[number] = made
        return made

    def _mark(self, made: Any, number: int, names: tuple[str, str]) -> None:
        for key, value in (("_remote_peer", self), ("_remote_number", number)):
            object.__setattr__(made, key, value)
        for key, text in zip(("__name__", "__doc__"), names, strict=True):
            if text:
                object.__setattr__(made, key, text)

    def _known_class(self, node: Any, depth: int) -> Any:
        if depth > 4 * MAX_DEPTH:
            raise Broken("nested too deeply")
        match node:
            case ("b", str() as name):
                found = getattr(builtins, name, None)
                if not isinstance(found, type):
                    raise Broken("not a class")
                return found
            case ("i", str() as module, str() as name):
                package = module.partition(".")[0]
                found = sys.modules.get(module) if package in sys.stdlib_module_names else None
                for part in name.split("."):
                    found = getattr(found, part, None)
                known = isinstance(found, type) and issubclass(found, BaseException)
                return found if known and package != "unittest" else Exception
            case ("c", int() as number, str() as name, list() as dunders, list() as bases):
                return self._class_of(number, name, dunders, bases, depth)
        raise Broken("not a class")

    def _class_of(self, number: int, name: str, dunders: list[Any], bases: list[Any], depth: int) -> type:
        if number in self._classes:
            return self._classes[number]
        parents = [self._known_class(base, depth + 1) for base in bases]
        parents = [base for base in parents if issubclass(base, (Remote, BaseException))]
        if not any(issubclass(base, Remote) for base in parents):
            parents.insert(0, Remote)
        space: dict[str, Any] = {dunder: _relay(dunder) for dunder in dunders if dunder in DUNDERS - _EQUALITY}
        space |= {"_remote_peer": self, "_remote_number": number, "_remote_equality": "__eq__" in dunders}
        if any(issubclass(base, BaseException) for base in parents):
            space |= {"__str__": lambda error: error._remote_text, "__eq__": object.__eq__, "__ne__": object.__ne__}
            space |= {"__hash__": object.__hash__, "__setattr__": BaseException.__setattr__}
        try:
            made: type = RemoteType(name, tuple(dict.fromkeys(parents)), space)
        except TypeError:  # bases that do not go together
            failing = any(issubclass(base, BaseException) for base in parents)
            made = RemoteType(name, (Remote, Exception) if failing else (Remote,), space)
        self._classes[number] = made
        return made

    def _raised(self, number: int, kind: Any, arguments: list[Any], text: str, depth: int) -> BaseException:
        if number in self._proxies:
            return self._proxies[number]  # type: ignore[no-any-return]
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise Broken("not an exception")
        given = tuple(self._value(argument, depth + 1) for argument in arguments)
        error: BaseException
        if isinstance(kind, RemoteType):
            error = _unmade(kind)
            error.args = given
            error.__dict__["_remote_text"] = text
        else:
            try:
                error = kind(*given)
            except Exception:  # it takes other arguments than it keeps
                error = _unmade(kind)
                error.args = given
        if isinstance(kind, RemoteType):
            error.__dict__.update(_remote_peer=self, _remote_number=number)
            self._proxies[number] = error
        return error

    # Asking.

    def request(self, op: str, target: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self._lock:
            given = self.pack((args, kwargs))
            self.send(("?", self.printed(), op, target, given))
            while True:
                message = self._receive()
                if isinstance(message, tuple) and message[:1] == ("?",):
                    self.send(self.answer(message))
                    continue
                return self._result(message, (args, kwargs))

    def send(self, message: Any) -> None:
        self._send(message)

    def _result(self, message: Any, given: Any) -> Any:
        match message:
            case ("!", printed, str() as how, packed, changed):
                self.show(printed)
                if changed is not None:
                    restore(given, self.unpack(changed))
                value = self.unpack(packed)
                if how == "value":
                    return value
                if isinstance(value, BaseException):
                    raise value
        raise Broken("not an answer")

    def get(self, thing: Any, name: str) -> Any:
        return self.request("get", number_of(thing), (name,), {})

    def operate(self, thing: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "__call__":
            return self.request("call", number_of(thing), args, kwargs)
        if name == "__exit__":  # tracebacks stay where they are
            args = (*args[:2], None)
        return self.request("op", number_of(thing), (name, *args), kwargs)

    def equal(self, thing: Any, other: object) -> bool:
        if thing is other or not type.__getattribute__(type(thing), "_remote_equality"):
            return thing is other
        return bool(self.request("op", number_of(thing), ("__eq__", other), {}))

    def hash(self, thing: Any) -> int:
        return hash(number_of(thing))

    # Answering.

    def answer(self, message: Any) -> Any:
        """The reply to a request. What the asked code raises is part of it."""
        match message:
            case ("?", printed, str() as op, int() as target, packed) if -1 <= target < len(self._lent):
                pass
            case _:
                raise Broken("not a request")
        self.show(printed)
        given = self.unpack(packed)
        if not (isinstance(given, tuple) and len(given) == 2 and type(given[0]) is tuple and type(given[1]) is dict):
            raise Broken("not a request")
        changing = mutable(given)
        before = codec.encode(self.pack(given)) if changing else b""
        self._answering += 1
        try:
            try:
                packed_value = self.pack(self._do(op, self._lent[target] if target >= 0 else None, *given))
                how = "value"
            except (NotCarried, Broken):
                raise
            except BaseException as error:
                packed_value, how = self.pack(error.with_traceback(None)), "error"
            after = self.pack(given) if changing else None
            changed = after is not None and codec.encode(after) != before
            return "!", self.printed(), how, packed_value, after if changed else None
        finally:
            self._answering -= 1

    def _do(self, op: str, thing: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        match op, args:
            case (("call" | "make"), _):
                return thing(*args, **kwargs)
            case "get", (str() as name,):
                return getattr(thing, name)
            case "set", (str() as name, value):
                return setattr(thing, name, value)
            case "del", (str() as name,):
                return delattr(thing, name)
            case "update", (str() as name, value):
                return restore(getattr(thing, name), value)
            case "await", ():
                return _awaited(thing)
            case "op", (str() as name, *rest):
                return operated(thing, name, rest, kwargs)
            case "names", ():
                return dir(thing)
        raise Broken("not a request")

    # Standard streams, which the judge's side has to see.

    def printed(self) -> Any:
        return "", ""

    def show(self, printed: Any) -> None:
        pass


def operated(thing: Any, name: str, rest: list[Any], kwargs: dict[str, Any]) -> Any:
    """What Python does for an operator or a builtin function that uses a special method."""
    if name not in DUNDERS:
        raise Broken("not an operator")
    if name == "__bool__":
        return bool(thing)
    if name in _EQUALITY or name in ORDER:
        return getattr(operator, name)(thing, *rest)
    if name in ("__iter__", "__len__", "__getitem__") and isinstance(thing, type):
        return {"__iter__": iter, "__len__": len, "__getitem__": operator.getitem}[name](thing, *rest)  # type: ignore[operator]
    return getattr(type(thing), name)(thing, *rest, **kwargs)


def _awaited(coroutine: Any) -> Any:
    import asyncio

    return asyncio.run(coroutine)


def _unmade(kind: Any) -> BaseException:
    """An exception of a class of the other side, which is not asked to make one."""
    error: BaseException = kind.__new__(kind)
    return error


def _telling(base: type) -> bool:
    """Whether a base class matters to the other side: exceptions, and the program's own classes."""
    if base is object or base in BASES:
        return False
    return issubclass(base, BaseException) or base.__module__ not in sys.stdlib_module_names


def _defines(kind: type, name: str) -> bool:
    for base in kind.__mro__:
        if name in base.__dict__:
            return base not in (object, BaseException, Exception) and base.__dict__[name] is not None
    return False
