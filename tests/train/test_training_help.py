"""What `opentriage-train --help` shows is what was written."""

import pytest

pytest.importorskip("torch")

from typer.main import get_command

from tests.support.helps import eaten
from training.cli import app

pytestmark = pytest.mark.train


def test_no_help_text_loses_what_stands_in_brackets() -> None:
    assert [*eaten(get_command(app))] == []
