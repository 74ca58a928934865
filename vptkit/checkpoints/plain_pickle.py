"""A pickle as plain values and stand-ins: nothing of it is imported, called or built.

    GLOBAL module name      Global("module.name"), if that is one of the names that are allowed
    REDUCE, NEWOBJ          Made("module.name", arguments); BUILD puts a state beside them
    BINPERSID               Persistent(what the pickle says)

Only `pickletools` looks at the bytes, which has no stack, no memo and no objects. So there is no
object whose pointers a pickle could write, and no memory that is not paid for in bytes of the file.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import BinaryIO

__all__ = ["Global", "Made", "Persistent", "RefusedError", "plain_pickle"]

_MOST_STEPS = 1_000_000  # a training checkpoint of a large ViT has some hundred thousand
_KEYS = (str, bytes, int, float, bool, type(None))  # a tuple's hash may take for ever


class RefusedError(Exception):
    """The pickle is damaged, or asks for what is not plain."""


class Global(NamedTuple):
    """What a pickle would import."""

    name: str


class Persistent(NamedTuple):
    """What a pickle leaves to its reader: torch's storages."""

    key: Any


@dataclass(slots=True, eq=False)
class Made:
    """What a pickle would call.

    Attributes:
        name: of the callable, with its module.
        arguments: of the call.
        state: what the pickle would put into the result, or None.
    """

    name: str
    arguments: tuple[Any, ...] = field(repr=False)
    state: Any = field(default=None, repr=False)


class _Mark:
    """Where a list of values begins on the stack."""


def plain_pickle(
    data: bytes | BinaryIO, allowed: Collection[str], left: list[Persistent] | None = None
) -> Any:
    """The value of a pickle of protocol 2 or later, in plain stand-ins.

    Dictionaries (ordered ones, too), lists, tuples, numbers and texts are themselves.

    Args:
        data: the pickle, or a stream that is read up to its end.
        allowed: names that may stand in it, as "torch._utils._rebuild_tensor_v2".
        left: is told all that the pickle leaves to its reader.

    Raises:
        RefusedError: another name (the message is that name), damage, or more than plain values.
    """
    machine = _Machine(allowed, left)
    try:
        for step, (code, argument, _) in enumerate(pickletools.genops(data)):
            if step > _MOST_STEPS:
                raise RefusedError("a pickle without an end")
            if code.name == "STOP":
                return machine.result()
            machine.step(code.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise RefusedError(f"a damaged pickle ({type(error).__name__})") from error
    raise RefusedError("a pickle without an end")


class _Machine:
    """The stack and the memo of a pickle that is being read."""

    def __init__(self, allowed: Collection[str], left: list[Persistent] | None = None) -> None:
        self.allowed = allowed
        self.left: list[Persistent] = [] if left is None else left
        self.stack: list[Any] = []
        self.marks: list[int] = []  # where on the stack; `pop` goes over none
        self.memo: dict[int, Any] = {}

    def step(self, code: str, argument: Any) -> None:
        """One instruction."""
        if code in _VALUES:
            self.stack.append(argument)
        elif code in _MEMO_READS:
            self.stack.append(self.memo[argument])
        elif code in _MEMO_WRITES:
            key = len(self.memo) if argument is None else argument
            self.memo[key] = self.stack[-1]
        elif code in _STEPS:
            _STEPS[code](self, argument)
        elif code not in ("PROTO", "FRAME"):
            raise RefusedError(f"the instruction {code}")

    def pop(self, kind: type | tuple[type, ...] = object) -> Any:
        """The value on top."""
        value = self.stack.pop()
        if not isinstance(value, kind) or isinstance(value, _Mark):
            raise RefusedError("a damaged pickle (misplaced values)")
        return value

    def result(self) -> Any:
        """The only value that is left."""
        value = self.pop()
        if self.stack:
            raise RefusedError("a damaged pickle (misplaced values)")
        return value

    def pop_to_mark(self) -> list[Any]:
        """All values above the last mark."""
        place = self.marks.pop()
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def mark(self) -> None:
        """Here begins a list of values."""
        self.marks.append(len(self.stack))
        self.stack.append(_Mark())

    def top(self, kind: type) -> Any:
        """The value on top, which stays."""
        if not isinstance(self.stack[-1], kind):
            raise RefusedError("a damaged pickle (misplaced values)")
        return self.stack[-1]

    def name(self, name: str) -> None:
        """What would be imported."""
        if name not in self.allowed:
            raise RefusedError(name[:200])
        self.stack.append(Global(name))

    def call(self) -> None:
        """What would be called; ordered dictionaries, sets and bytes are plain enough."""
        arguments, called = self.pop(tuple), self.pop(Global)
        if isinstance(arguments, (Global, Persistent)):
            raise RefusedError("a damaged pickle (misplaced values)")
        if called.name == "collections.OrderedDict" and arguments == ():
            self.stack.append({})
        elif called.name in ("__builtin__.bytes", "builtins.bytes") and arguments == ():
            self.stack.append(b"")
        elif called.name == "_codecs.encode" and arguments[1:] == ("latin1",):
            self.stack.append(arguments[0].encode("latin1"))
        else:
            self.stack.append(Made(called.name, arguments))

    def leave(self, key: Any) -> None:
        """What the reader is to put here."""
        self.left.append(Persistent(key))
        self.stack.append(self.left[-1])

    def build(self) -> None:
        """A state; that of a dictionary says nothing of its content."""
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, Made):
            target.state = state
        elif not isinstance(target, dict):
            raise RefusedError("a damaged pickle (misplaced values)")

    def put(self, pairs: list[Any]) -> None:
        """Keys and values, into the dictionary on top."""
        target = self.top(dict)
        if len(pairs) % 2 or not all(isinstance(key, _KEYS) for key in pairs[::2]):
            raise RefusedError("a dictionary whose keys are no names")
        target.update(zip(pairs[::2], pairs[1::2], strict=True))


def _global(machine: _Machine, argument: str) -> None:
    machine.name(argument.replace(" ", ".", 1))


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(str), machine.pop(str)
    machine.name(f"{module}.{name}")


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    def make(machine: _Machine, _: Any) -> None:
        values = tuple(machine.pop() for _ in range(count))[::-1]
        machine.stack.append(values)

    return make


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.put([key, value])


_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING", "SHORT_BINSTRING"),
}
_MEMO_READS = {"BINGET", "LONG_BINGET"}
_MEMO_WRITES = {"BINPUT", "LONG_BINPUT", "MEMOIZE"}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "MARK": lambda m, _: m.mark(),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_to_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "APPEND": lambda m, _: _extend(m, [m.pop()]),
    "APPENDS": lambda m, _: _extend(m, m.pop_to_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda m, _: m.put(m.pop_to_mark()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.leave(m.pop()),
}


def _extend(machine: _Machine, values: list[Any]) -> None:
    machine.top(list).extend(values)
