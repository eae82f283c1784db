"""Tensors and numbers that a pickle mentions: noted as it is read, loaded once all is checked."""

from __future__ import annotations

import io
import math
import pickletools
import struct
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sims_core.nets.inert_pickle import Note, Refused

_STORAGES = {
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch DoubleStorage": torch.float64,
}
"""Names that a storage's own pickle may hold."""
_MAGIC = 0x1950A86A20F9469CFC6C
"""What PyTorch's format of before 1.6 begins with; storages inside pickles are still in it."""
_PROTOCOL = 1001
_NUMBERS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "b1": "?"}
_NUMBERS |= {"u8": "Q", "u4": "I", "u2": "H", "u1": "B"}
"""numpy's codes of plain numbers, as struct's."""
MOST_ELEMENTS = 65_536
"""The most bytes of an array that is noted beside the network."""


@dataclass(frozen=True)
class TextBytes:
    """Bytes that the file holds as a text, a letter each: they are made only where they are read.

    A text that is encoded again and again takes no memory before that.
    """

    text: str

    def __len__(self) -> int:
        return len(self.text)

    def __bytes__(self) -> bytes:
        try:
            return self.text.encode("latin1")
        except UnicodeEncodeError:
            raise Refused("a text that stands for bytes and holds other letters") from None


def note_text_bytes(text: Any, encoding: Any = None) -> TextBytes:
    """In the place of `_codecs.encode`, which pickles of protocol 2 call for byte strings.

    No codec is looked up: latin1 alone is known.
    """
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("a call of _codecs.encode that does not turn a text to bytes by latin1")
    return TextBytes(text)


@dataclass(frozen=True)
class StorageNote:
    """The bytes of a storage as PyTorch saved it."""

    data: memoryview | TextBytes


@dataclass(frozen=True)
class TensorNote:
    """A tensor that was not loaded: a view of a storage."""

    storage: StorageNote
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.size)

    @property
    def reach(self) -> int:
        """Elements that its storage must have."""
        if self.count == 0:
            return 0
        last = sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        return self.offset + last + 1


def note_storage(data: Any) -> StorageNote:
    """In the place of `torch.storage._load_from_bytes`."""
    if not isinstance(data, memoryview | TextBytes):
        raise Refused("a tensor's storage is no byte string")
    return StorageNote(data)


def _whole_numbers(values: Any, what: str) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > 8:
        raise Refused(f"a tensor's {what} is no tuple of at most 8")
    if not all(type(value) is int and 0 <= value < 2**40 for value in values):
        raise Refused(f"a tensor's {what} holds what is no size")
    return values


def note_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_unused: Any) -> TensorNote:
    """In the place of `torch._utils._rebuild_tensor_v2`; whether it wants gradients is not kept."""
    if not isinstance(storage, StorageNote):
        raise Refused("a tensor without a storage")
    (start,) = _whole_numbers((offset,), "offset")
    size, stride = _whole_numbers(size, "size"), _whole_numbers(stride, "stride")
    if len(size) != len(stride):
        raise Refused("a tensor's size and stride differ in length")
    return TensorNote(storage, start, size, stride)


def note_parameter(data: Any, *_unused: Any) -> TensorNote:
    """In the place of `torch._utils._rebuild_parameter`."""
    if not isinstance(data, TensorNote):
        raise Refused("a parameter that is no tensor")
    return data


def _storage_kind(content: bytes) -> tuple[torch.dtype, int]:
    """Number type and count of the elements that a saved storage holds.

    Everything in it is compared with the one form that PyTorch writes, its length included: what is
    loaded afterwards is as large as it says.

    Raises:
        Refused: it is of another form.
    """
    stream = io.BytesIO(content)
    parts = []
    for _ in range(5):
        part = []
        for operation, argument, _position in pickletools.genops(stream):
            part.append((operation.name, argument))
            if len(part) > 100:
                raise Refused("a storage of another form than PyTorch's")
        parts.append(part)
    magic, protocol, _system, storage, keys = parts
    told = [value for code, value in storage if code not in ("BINPUT", "PROTO")]
    codes = [code for code, _ in storage if code not in ("BINPUT", "PROTO")]
    wanted = ["MARK", "BINUNICODE", "GLOBAL", "BINUNICODE", "BINUNICODE", "", "NONE", "TUPLE"]
    wanted += ["BINPERSID", "STOP"]
    integers = ("BININT", "BININT1", "BININT2", "LONG1")
    if (
        ("LONG1", _MAGIC) not in magic
        or ("BININT2", _PROTOCOL) not in protocol
        or [code for i, code in enumerate(codes) if i != 5] != wanted[:5] + wanted[6:]
        or codes[5] not in integers
        or told[1] != "storage"
        or ("BINUNICODE", told[3]) not in keys
    ):
        raise Refused("a storage of another form than PyTorch's")
    if told[2] not in _STORAGES:
        raise Refused(f"a storage of {told[2]!r}: a network's numbers are floating point")
    kind, count, start = _STORAGES[str(told[2])], int(told[5] or 0), stream.tell()
    held = len(content) - start - 8
    if held != count * kind.itemsize or content[start : start + 8] != count.to_bytes(8, "little"):
        raise Refused(f"a storage claims {count:,} numbers and holds {max(held, 0):,} bytes")
    return kind, count


class TensorLoader:
    """Loads tensors by PyTorch's weights-only reader."""

    def __init__(self) -> None:
        self._shared: dict[int, tuple[Any, torch.dtype, int]] = {}
        """Storages of which a part was loaded, by the identity of their notes."""
        self.widened = False
        """Whether a tensor had half precision."""

    def load(self, note: TensorNote) -> Tensor:
        """The tensor in float32, contiguous, of memory of its own.

        Raises:
            Refused: its storage is of another form, or too small for it.
        """
        key = id(note.storage)
        held = self._shared.pop(key) if key in self._shared else _load_storage(note.storage)
        storage, kind, count = held
        if note.reach > count or note.count > count:
            raise Refused(f"a tensor of shape {list(note.size)} in a storage of {count:,} numbers")
        self.widened |= kind.itemsize < 4
        view = torch.empty(0, dtype=kind).set_(
            storage._untyped_storage, note.offset, note.size, note.stride
        )
        if note.count == count:  # all of it: nothing else may use this memory
            return view.to(torch.float32).contiguous()
        self._shared[key] = storage, kind, count
        return view.to(torch.float32, copy=True).contiguous()


def _load_storage(note: StorageNote) -> tuple[Any, torch.dtype, int]:
    """A storage, its number type and how many numbers it holds."""
    content = bytes(note.data)
    kind, count = _storage_kind(content)
    storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return storage, kind, count


def note_dtype(code: Any, *_unused: Any) -> Note:
    """In the place of `numpy.dtype`."""
    if code not in _NUMBERS:
        raise Refused(f"numbers of numpy's type {str(code)[:50]!r}")
    return Note("dtype", (code,))


def _numbers(dtype: Any, data: Any) -> list[float]:
    """Plain numbers from their bytes."""
    if not isinstance(dtype, Note) or dtype.name != "dtype":
        raise Refused("an array of no known type")
    if not isinstance(data, memoryview | TextBytes):
        raise Refused("an array that holds no byte string")
    state = dtype.state or (3, "<")
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"
    prefix = {"<": "<", ">": ">", "|": "<", "=": "<" if sys.byteorder == "little" else ">"}
    code = _NUMBERS[dtype.arguments[0]]
    if order not in prefix or len(data) % struct.calcsize("<" + code):
        raise Refused("an array whose bytes do not fit its type")
    count = len(data) // struct.calcsize("<" + code)
    if count > MOST_ELEMENTS:
        raise Refused(f"an array of {count:,} numbers")
    return list(struct.unpack(f"{prefix[order]}{count}{code}", bytes(data)))


def read_scalar(dtype: Any, data: Any) -> float:
    """In the place of `numpy.core.multiarray.scalar`."""
    values = _numbers(dtype, data)
    if len(values) != 1:
        raise Refused("a number of more than one value")
    return values[0]


def note_array(*_unused: Any) -> Note:
    """In the place of `numpy.core.multiarray._reconstruct`: what follows gives it its state."""
    return Note("ndarray", ())


def note_array_of_bytes(data: Any, dtype: Any, shape: Any, *_unused: Any) -> Note:
    """In the place of `numpy.core.numeric._frombuffer`, which pickles of protocol 5 call."""
    return Note("ndarray", (), (1, shape, dtype, False, data))


def array_values(note: Note) -> list[float]:
    """The numbers of an array in the order in which they are stored."""
    state = note.state
    if not isinstance(state, tuple) or len(state) != 5:
        raise Refused("an array without its numbers")
    return _numbers(state[2], state[4])
