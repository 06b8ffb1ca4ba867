"""Files of weights: torch's zip archives, its older stream of pickles, and safetensors. Nothing in them is ever run."""

import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.importing.restricted import CheckpointError, Inert, Storage, Stored, read_pickle, rebuild

STREAM_MAGIC = 0x1950A86A20F9469CFC6C  # what torch.save wrote first until 1.6
STREAM_PROTOCOL = 1001
MAX_HEADER = 100 * 2**20  # bytes of a pickle or header; weights are not in it
SAFE_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Checkpoint:
    """tensors: flat, by dotted name. attributes: what a whole module says of itself beside them, plain values only.
    strangers: the names of classes and functions that the file asked for and that were not loaded."""

    tensors: dict[str, Tensor]
    attributes: dict[str, Any] = field(default_factory=dict)
    strangers: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """Raises CheckpointError."""
    try:
        head = path.open("rb").read(512)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None
    try:
        if path.suffix == ".safetensors":
            return _safetensors(path)
        if zipfile.is_zipfile(path):
            return _archive(path)
        if head[257:262] == b"ustar":
            raise CheckpointError("a tar archive as torch wrote it before 0.1.10; save it anew with a current torch")
        return _stream(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _archive(path: Path) -> Checkpoint:
    """A zip of data.pkl and one entry per storage, stored as it is."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
            if len(found) != 1 or any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise CheckpointError("a zip, but no archive of torch.save (a TorchScript program is not taken)")
            root = found[0].removesuffix("data.pkl")
            order = f"{root}byteorder"
            if order in archive.namelist() and archive.read(order) != b"little":
                raise CheckpointError("saved on a big-endian machine")
            content, reader = read_pickle(io.BytesIO(_entry(archive, found[0], MAX_HEADER)))
            return _checkpoint(
                content,
                reader.strangers,
                lambda storage: _entry(archive, f"{root}data/{storage.key}", storage.numel * storage.dtype.itemsize),
            )
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"a damaged archive ({error})") from None


def _entry(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > most:
        raise CheckpointError(f"entry {name} is larger than it may be, or compressed")
    return archive.read(info)


def _stream(path: Path) -> Checkpoint:
    """Four pickles, a list of keys, then per key the number of elements and their bytes."""
    with path.open("rb") as file:
        if read_pickle(file)[0] != STREAM_MAGIC or read_pickle(file)[0] != STREAM_PROTOCOL:
            raise CheckpointError("no file of torch.save and no safetensors")
        system, _ = read_pickle(file)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise CheckpointError("saved on a big-endian machine")
        content, reader = read_pickle(file)
        keys, _ = read_pickle(file)
        wanted = reader.storages
        held: dict[str, bytes] = {}
        for key in keys if isinstance(keys, list) else []:
            (count,) = struct.unpack("<q", file.read(8).ljust(8, b"\0"))
            if str(key) not in wanted or wanted[str(key)].numel != count:
                raise CheckpointError("its storages do not fit its tensors")
            held[str(key)] = file.read(count * wanted[str(key)].dtype.itemsize)
        return _checkpoint(content, reader.strangers, lambda storage: held.get(storage.key, b""))


def _safetensors(path: Path) -> Checkpoint:
    """8 bytes: the length of a JSON header; the header; the tensors."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if length > MAX_HEADER:
            raise CheckpointError("no safetensors file")
        try:
            header = json.loads(file.read(length))
            data = file.read()
            parts = {name: _safe_tensor(part, data) for name, part in header.items() if name != "__metadata__"}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"a damaged safetensors file ({type(error).__name__})") from None
    return Checkpoint(parts)


def _safe_tensor(part: dict[str, Any], data: bytes) -> Tensor:
    dtype, (begin, end) = SAFE_DTYPES[part["dtype"]], part["data_offsets"]
    shape = tuple(int(side) for side in part["shape"])
    if not 0 <= begin <= end <= len(data):
        raise ValueError("offsets")
    content = data[begin:end]
    if not content:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape).clone()


def _checkpoint(content: Any, strangers: set[str], read: Callable[[Storage], bytes]) -> Checkpoint:
    attributes = _state(content) if isinstance(content, Inert) else {}
    plain = {key: value for key, value in attributes.items() if isinstance(key, str) and _plain(value)}
    found = dict(_tensors(content))
    tensors = {name: rebuild(stored, read(stored.storage)) for name, stored in found.items()}
    for key, value in attributes.items():
        if isinstance(value, Stored):
            plain[key] = rebuild(value, read(value.storage)).tolist()
    return Checkpoint(tensors, plain, tuple(sorted(strangers)))


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_plain(item) for item in value)
    return isinstance(value, str | int | float | bool | None)


def _state(module: Inert) -> dict[str, Any]:
    state = module.__dict__.get("state")
    return state if isinstance(state, dict) else {}


def _tensors(content: Any) -> Iterator[tuple[str, Stored]]:
    """Of a state dict, of a checkpoint that holds one, or of a whole module."""
    if isinstance(content, dict):
        inner = content.get("state_dict", content.get("model"))
        if isinstance(inner, dict | Inert):
            yield from _tensors(inner)
            return
        yield from ((name, value) for name, value in content.items() if isinstance(value, Stored))
    elif isinstance(content, Inert):
        yield from _of_module(content, "", 0)


def _of_module(module: Inert, prefix: str, depth: int) -> Iterator[tuple[str, Stored]]:
    if depth > 50:
        raise CheckpointError("modules nested too deeply")
    state = _state(module)
    for kind in ("_parameters", "_buffers"):
        held = state.get(kind)
        for name, value in held.items() if isinstance(held, dict) else ():
            if isinstance(value, Stored):
                yield f"{prefix}{name}", value
    inside = state.get("_modules")
    for name, part in inside.items() if isinstance(inside, dict) else ():
        if isinstance(part, Inert):
            yield from _of_module(part, f"{prefix}{name}.", depth + 1)
