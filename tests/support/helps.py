"""What a command's help says, held against what rich makes of it: square brackets are its markup."""

from collections.abc import Iterator
from typing import Any

from rich.text import Text


def eaten(command: Any) -> Iterator[str]:
    """Every help text of a command and of those below it that would be shown with something missing."""
    texts = [command.help, command.epilog, *(getattr(one, "help", None) for one in command.params)]
    yield from (text for text in texts if text and Text.from_markup(text).plain != text.replace("\b", ""))
    for below in getattr(command, "commands", {}).values():
        yield from eaten(below)
