"""What a stranger does not read on the page: sentences that a person wrote, for such a sentence may name a patient, and
the name of a token that somebody sends by STOW-RS with, which is a person's more often than not."""

import re
from collections.abc import Iterable
from typing import Final

from ledger.history import Event
from ledger.peers import BY_STOW

NOT_SAID: Final = "(why is shown to who signed in)"
_TOLD_BY_PERSONS: Final = frozenset({"report_recalled", "looked_at_again"})  # "what was done: the person's sentence"
_SHORTEST: Final = 3  # letters: shorter ones would be found in every word
_TOKEN: Final = re.compile(BY_STOW + r"[\w.@-]+")  # of what a token's name may be made: node/commands/token.py


def without_tokens(text: str) -> str:
    """Whoever sends by STOW-RS is "STOW", without his token's name."""
    return _TOKEN.sub(BY_STOW.rstrip(":"), text)


class Words:
    """Of persons, in one study's events."""

    def __init__(self, events: Iterable[Event]) -> None:
        said = {one.text.partition(": ")[2].strip() for one in events if one.name in _TOLD_BY_PERSONS}
        self._said = sorted(said - {""}, key=len, reverse=True)

    def without(self, name: str, text: str) -> str:
        """An event's text, or any other line (name: ""), without them."""
        if name in _TOLD_BY_PERSONS:
            return f"{text.partition(': ')[0]} {NOT_SAID}"
        for sentence in self._said:
            if len(sentence) >= _SHORTEST:
                text = text.replace(sentence, NOT_SAID)
        return without_tokens(text)
