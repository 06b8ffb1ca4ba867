"""Look into an ONNX file before ONNX Runtime does, without the onnx package: a small walk of its protobuf.

Refused: external data (a path that leaves the package), sparse initialisers (which may hide one), operators outside
the standard's own domains. Field numbers are those of onnx.proto.
"""

from collections.abc import Iterator

ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
MAX_DEPTH = 16

_Field = tuple[int, int, memoryview]  # number, varint value, bytes (empty for a varint)


def onnx_problems(content: bytes) -> list[str]:
    """What is wrong with a model file, in sentences; empty when nothing is."""
    problems: set[str] = set()
    try:
        for number, _, data in _fields(memoryview(content)):
            if number == 7:  # graph
                _walk_graph(data, problems, 0)
            elif number == 8:  # opset_import
                _check_domain(_text(data, 1), problems)
            elif number == 20:
                problems.add("it holds training information")
            elif number == 25:
                problems.add("it defines functions of its own")
    except ValueError as error:
        return [f"it is not an ONNX file ({error})"]
    return sorted(problems)


def _walk_graph(graph: memoryview, problems: set[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    for number, _, data in _fields(graph):
        if number == 1:  # node
            _walk_node(data, problems, depth)
        elif number == 5:  # initializer
            _check_tensor(data, problems)
        elif number == 15:  # sparse_initializer
            problems.add("it has sparse initialisers")


def _walk_node(node: memoryview, problems: set[str], depth: int) -> None:
    for number, _, data in _fields(node):
        if number == 7:  # domain
            _check_domain(bytes(data).decode("utf-8", "replace"), problems)
        elif number == 5:  # attribute
            _walk_attribute(data, problems, depth)


def _walk_attribute(attribute: memoryview, problems: set[str], depth: int) -> None:
    for number, _, data in _fields(attribute):
        if number in (5, 10):  # t, tensors
            _check_tensor(data, problems)
        elif number in (6, 11):  # g, graphs
            _walk_graph(data, problems, depth + 1)
        elif number in (22, 23):  # sparse_tensor, sparse_tensors
            problems.add("it has sparse tensors")


def _check_tensor(tensor: memoryview, problems: set[str]) -> None:
    for number, value, _ in _fields(tensor):
        if number == 13 or (number == 14 and value != 0):  # external_data, data_location
            problems.add("it refers to external data")


def _check_domain(domain: str, problems: set[str]) -> None:
    if domain not in ALLOWED_DOMAINS:
        problems.add(f"it uses operators of the domain {domain[:60]!r}")


def _text(message: memoryview, wanted: int) -> str:
    texts = (bytes(data).decode("utf-8", "replace") for number, _, data in _fields(message) if number == wanted)
    return next(texts, "")


def _fields(message: memoryview) -> Iterator[_Field]:
    """The fields of one protobuf message. Raises ValueError when it is malformed."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value, message[:0]
            continue
        size, at = (8, at) if wire == 1 else (4, at) if wire == 5 else _length(message, at, wire)
        if size > len(message) - at:
            raise ValueError("a field is longer than the file")
        yield number, 0, message[at : at + size]
        at += size


def _length(message: memoryview, at: int, wire: int) -> tuple[int, int]:
    if wire != 2:
        raise ValueError("unknown wire type")
    return _varint(message, at)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("cut short")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("number too long")
