"""These tests need torch and what else the extra `train` brings: without it they fail, they do not skip."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

if not all(map(find_spec, ("torch", "onnxscript", "sklearn"))):
    raise pytest.UsageError(
        "tests/train needs what the extra `train` brings: `make test-train` installs it and runs them"
    )


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For fits of small networks, which more threads make no quicker and others slower."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
