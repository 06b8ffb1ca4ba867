"""What a text of the settings may look like, once for the program and once for the person who wrote it."""

from typing import Any

from pydantic import Field

NAME = "a name is letters, digits, blanks and . @ : - _ alone: for example 'main PACS'"
WANTED: dict[str, str] = {}  # by pattern: what is wanted, with an example


def text_like(pattern: str, wanted: str, min_length: int | None = None, max_length: int | None = None) -> Any:
    """A field's text, which matches `pattern`. wanted: what an error says in place of the pattern."""
    WANTED[pattern] = wanted
    return Field(pattern=pattern, min_length=min_length, max_length=max_length)
