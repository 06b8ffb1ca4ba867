"""One hospital and one browser for every test here: a second chromium would only take turns with the first."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.clinic import Clinic, clinic
from tests.support.ohif import NoOhif

if not find_spec("playwright"):
    raise pytest.UsageError("tests/viewers needs playwright: `make test-viewers` installs it and runs these tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", type=Path, help="keep the pictures for docs/ in this folder")


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """Everything a node said of five studies, in two archives with OHIF in front of them."""
    try:
        with clinic(tmp_path_factory.mktemp("clinic")) as made:
            yield made
    except NoOhif as missing:
        pytest.fail(str(missing))
