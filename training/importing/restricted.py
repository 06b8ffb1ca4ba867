"""Read a pickle of torch's without running it.

Whatever a pickle names becomes an inert stand-in: calling one runs nothing of anybody's, it only notes what it was
called with. Real are a handful of containers, numbers, and the two functions that rebuild a tensor, written here anew:
they note where in which storage a tensor lies, and read no byte.
"""

import collections
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class CheckpointError(ValueError):
    """A file that cannot be read as weights, or that is not what it was said to be."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage by the key under which the file keeps its bytes; `numel` elements."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor that has not been read yet."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Inert:
    """Stands in for anything. Its class is made anew for every name in a pickle."""

    named = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        self = object.__new__(cls)
        self.__dict__["called_with"] = args
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__.setdefault("state", {})

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state

    def append(self, item: Any) -> None:
        """Lists by another name."""

    def extend(self, items: Any) -> None:
        """Lists by another name."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Dictionaries by another name."""


@dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: torch.dtype


class _Rebuild:
    """torch._utils._rebuild_tensor and _rebuild_tensor_v2: (storage, offset, size, stride, ...)."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Stored:
        numbers = (offset, *size, *stride)
        if not isinstance(storage, Storage) or len(size) != len(stride):
            raise CheckpointError("a tensor without a storage of its own")
        if any(type(number) is not int or number < 0 for number in numbers):
            raise CheckpointError("a tensor whose shape is no shape")
        return Stored(storage, offset, tuple(size), tuple(stride))


class _Parameter:
    """torch._utils._rebuild_parameter: (data, requires_grad, hooks)."""

    __slots__ = ()

    def __call__(self, data: Any, *_: Any) -> Any:
        return data


SAFE: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _Rebuild(),
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
    ("torch._utils", "_rebuild_parameter"): _Parameter(),
} | {("torch", name): _StorageType(dtype) for name, dtype in DTYPES.items()}


class Restricted(pickle.Unpickler):
    """find_class never imports. `strangers` are the names that got a stand-in, `storages` what holds tensors."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")
        self.strangers: set[str] = set()
        self.storages: dict[str, Storage] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        known = SAFE.get((module_name, global_name))
        if known is not None:
            return known
        named = f"{module_name}.{global_name}"
        self.strangers.add(named)
        return type("Inert", (Inert,), {"named": named})

    def persistent_load(self, pid: Any) -> Any:
        """("storage", type, key, location, numel, ...) of tensors, ("module", class, ...) of whole modules."""
        if not isinstance(pid, tuple) or not pid:
            raise CheckpointError("a reference to something outside the file")
        if pid[0] == "module":
            return pid[1]
        if pid[0] != "storage" or len(pid) < 5 or not isinstance(pid[1], _StorageType):
            raise CheckpointError("a reference to something that is no storage")
        if type(pid[4]) is not int or pid[4] < 0:
            raise CheckpointError("a storage whose length is no number")
        storage = Storage(str(pid[2]), pid[1].dtype, pid[4])
        return self.storages.setdefault(storage.key, storage)


def read_pickle(file: BinaryIO) -> tuple[Any, Restricted]:
    """What the next pickle in the file describes, and who read it. Raises CheckpointError."""
    reader = Restricted(file)
    load: Callable[[], Any] = reader.load
    try:
        return load(), reader
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001  a hostile pickle can make the unpickler raise whatever it likes
        raise CheckpointError(f"its pickle cannot be read ({type(error).__name__})") from None


def rebuild(stored: Stored, content: bytes) -> torch.Tensor:
    """The tensor out of its storage's bytes. Raises CheckpointError when it would reach beyond them."""
    storage = stored.storage
    if len(content) != storage.numel * storage.dtype.itemsize:
        raise CheckpointError("a storage is shorter or longer than it says")
    count = 1
    for side in stored.size:
        count *= side
    reach = stored.offset + sum((side - 1) * step for side, step in zip(stored.size, stored.stride, strict=True)) + 1
    if count and (reach > storage.numel or count > storage.numel):
        raise CheckpointError("a tensor reaches beyond its storage")
    if not count:
        return torch.empty(stored.size, dtype=storage.dtype)
    flat = torch.frombuffer(bytearray(content), dtype=storage.dtype)
    return flat.as_strided(stored.size, stored.stride, stored.offset).clone()
