"""Reads a pickle without running anything in it: a small machine of its own, not `pickle`'s.

`pickle.Unpickler` with a restricted `find_class` would still allocate what a file claims, set
attributes of the functions that it may call, and hash keys that are made to collide. Here the
opcodes are decoded by the standard library's `pickletools`, and what they do is written out below:
they make containers, plain values and inert notes of objects. A name that the file mentions is
looked up in a table of builders that are ours; it is never imported.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sims_core.common.errors import BadInput

MOST_OPERATIONS = 400_000
"""Opcodes of a file. Networks of 300 layers have about 50,000."""
MOST_CHARACTERS = 2**26
"""Of one text. Pickles of protocol 2 hold weights as texts; ADM's largest have 42 million bytes."""
MOST_STACKED = 100_000
"""Values and marks that wait on the stack."""


@dataclass(frozen=True)
class Name:
    """A global name that the file mentions and that is known: `call` makes something inert."""

    full: str
    call: Callable[..., Any]


@dataclass
class Note:
    """An object of the file that is not made: what its class is called and what it was given."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None
    items: dict[str, Any] = field(default_factory=dict)
    """Where it is a mapping."""


class _Mark:
    """Where a group of values on the stack begins."""


_MARK = _Mark()

Globals = Mapping[str, Callable[..., Any]]
"""By full name ("collections.OrderedDict"), what REDUCE and NEWOBJ of that name do."""


class Refused(ValueError):
    """The pickle holds what is not read here; the message says what."""


class _Machine:
    """The stack and memo of a pickle that is being read."""

    def __init__(self, data: mmap.mmap | bytes, names: Globals) -> None:
        self.view = memoryview(data)
        self.names = names
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        """The newest value."""
        if not self.stack or self.stack[-1] is _MARK:
            raise Refused("an operation lacks its values")
        return self.stack.pop()

    def top(self) -> Any:
        """The newest value, which stays."""
        if not self.stack or self.stack[-1] is _MARK:
            raise Refused("an operation lacks its values")
        return self.stack[-1]

    def group(self) -> list[Any]:
        """The values since the newest mark, which goes too."""
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                values = self.stack[place + 1 :]
                del self.stack[place:]
                return values
        raise Refused("an operation lacks its mark")

    def remember(self, index: int, value: Any) -> None:
        """Puts a value in the memo; its index may be at most the number of those before."""
        if index < 0 or index > len(self.memo):
            raise Refused(f"memo index {index} skips others")
        self.memo[index] = value

    def recall(self, index: int) -> Any:
        """A value of the memo."""
        if index not in self.memo:
            raise Refused(f"memo index {index} holds nothing")
        return self.memo[index]

    def name(self, module: Any, qualified: Any) -> Name:
        """A global name, if it is known.

        Raises:
            Refused: it is not.
        """
        if not isinstance(module, str) or not isinstance(qualified, str):
            raise Refused("a name that is no text")
        full = f"{module}.{qualified}"
        if full not in self.names:
            raise Refused(f"it names {full[:200]!r}, which no network file needs")
        return Name(full, self.names[full])


def _call(machine: _Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise Refused("a call of what is no known name")
    machine.stack.append(function.call(*arguments))


def _set_items(target: Any, pairs: list[Any]) -> None:
    """Keys and values in turn into a dict, or into the note of a mapping."""
    if isinstance(target, Note):
        target = target.items
    if not isinstance(target, dict) or len(pairs) % 2:
        raise Refused("items are set in what is no dict")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        # Text alone: other keys can be made to have equal hashes, for quadratic time.
        if not isinstance(key, str):
            raise Refused(f"a dict's key is of type {type(key).__name__}, only text is read")
        target[key] = value


def _append(target: Any, values: list[Any]) -> None:
    if not isinstance(target, list):
        raise Refused("values are appended to what is no list")
    target.extend(values)


def _add(target: Any, values: list[Any]) -> None:
    if not isinstance(target, set) or not all(isinstance(value, str) for value in values):
        raise Refused("a set of what is not text")
    target.update(values)


def _build(machine: _Machine) -> None:
    """Gives an object its state: of notes alone, and once."""
    state, target = machine.pop(), machine.top()
    if not isinstance(target, Note) or target.state is not None:
        raise Refused(f"state is given to a {type(target).__name__}")
    target.state = state


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}
_VALUES = ("BININT", "BININT1", "BININT2", "BINFLOAT")
_LONGS = ("LONG1", "LONG4")
_TEXTS = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_BYTES = {"SHORT_BINBYTES": 2, "BINBYTES": 5, "BINBYTES8": 9, "BYTEARRAY8": 9}
"""Opcodes of byte strings, with the size of what stands before the bytes."""
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MANY: dict[str, Callable[[Any, list[Any]], None]] = {
    "APPENDS": _append,
    "SETITEMS": _set_items,
    "ADDITEMS": _add,
}


def _push_value(machine: _Machine, code: str, argument: Any, position: int) -> bool:
    """Does an opcode that pushes a value that it holds; False: it is of another kind."""
    stack = machine.stack
    if code in _CONSTANTS:
        stack.append(_CONSTANTS[code]())
    elif code in _VALUES:
        stack.append(argument)
    elif code in _LONGS:
        if argument.bit_length() > 64:
            raise Refused("an integer of more than 64 bits")
        stack.append(argument)
    elif code in _TEXTS:
        if len(argument) > MOST_CHARACTERS:
            raise Refused(f"a text of {len(argument):,} characters")
        stack.append(argument)
    elif code in _BYTES:
        start = position + _BYTES[code]
        stack.append(machine.view[start : start + len(argument)])
    else:
        return False
    return True


def _combine(machine: _Machine, code: str, argument: Any) -> None:
    """Does an opcode that makes something of what is on the stack."""
    stack = machine.stack
    if code in _TUPLES:
        values = [machine.pop() for _ in range(_TUPLES[code])]
        stack.append(tuple(reversed(values)))
    elif code == "TUPLE":
        stack.append(tuple(machine.group()))
    elif code in _MANY:
        values = machine.group()
        _MANY[code](machine.top(), values)
    elif code == "APPEND":
        value = machine.pop()
        _append(machine.top(), [value])
    elif code == "SETITEM":
        value, key = machine.pop(), machine.pop()
        _set_items(machine.top(), [key, value])
    elif code == "MEMOIZE":
        machine.remember(len(machine.memo), machine.top())
    elif code in ("BINPUT", "LONG_BINPUT"):
        machine.remember(argument, machine.top())
    elif code in ("BINGET", "LONG_BINGET"):
        stack.append(machine.recall(argument))
    elif code == "STACK_GLOBAL":
        qualified, module = machine.pop(), machine.pop()
        stack.append(machine.name(module, qualified))
    elif code == "GLOBAL":
        stack.append(machine.name(*argument.split(" ", 1)))
    elif code in ("REDUCE", "NEWOBJ"):
        _call(machine)
    elif code == "BUILD":
        _build(machine)
    elif code == "POP":
        stack.pop()
    elif code == "POP_MARK":
        machine.group()
    elif code in ("PERSID", "BINPERSID"):
        raise Refused("it refers to an object outside the file")
    elif code not in ("PROTO", "FRAME"):
        raise Refused(f"it has the operation {code}, which no network file needs")


def _operations(data: mmap.mmap | bytes) -> Iterator[tuple[str, Any, int]]:
    """Name, argument and position of each opcode.

    Raises:
        ValueError: the bytes are no pickle, or end before it does.
    """
    # A map of a file is read like one, and ends where the file does whatever is claimed.
    stream: Any = data
    for count, (opcode, argument, position) in enumerate(pickletools.genops(stream)):
        if count >= MOST_OPERATIONS:
            raise Refused(f"it has more than {MOST_OPERATIONS:,} operations")
        yield opcode.name, argument, position or 0


def read_inert(data: mmap.mmap | bytes, names: Globals) -> Any:
    """What a pickle of protocol 2 to 5 holds, with notes in the place of its objects.

    Byte strings are views of `data`, not copies.

    Args:
        names: what each global name that is known makes of its arguments.

    Raises:
        Refused: it names anything else, or is no whole pickle; the message says what was found.
    """
    machine, end = _Machine(data, names), 0
    for code, argument, position in _operations(data):
        if code == "STOP":
            end = position + 1
            break
        if not _push_value(machine, code, argument, position):
            _combine(machine, code, argument)
        if len(machine.stack) > MOST_STACKED:
            raise Refused(f"more than {MOST_STACKED:,} values wait on its stack")
    result = machine.pop()
    if machine.stack:
        raise Refused("values are left over at its end")
    if end != len(data):
        raise Refused(f"{len(data) - end:,} bytes follow its end")
    return result


def map_file(path: Path) -> mmap.mmap:
    """The bytes of a file that is not empty, without reading them.

    Raises:
        BadInput: it cannot be opened, or holds nothing.
    """
    if not path.is_file():
        raise BadInput(f"{path} is no file: give a network pickle, such as edm-...-vp.pkl")
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
