"""What `opentriage-train --help` shows is what was written."""

from typer.main import get_command

from tests.support.helps import eaten
from training.cli import app


def test_no_help_text_loses_what_stands_in_brackets() -> None:
    assert [*eaten(get_command(app))] == []
