"""The ledger for commands that only ask: a question must not make what it asks about."""

import re
from typing import Final

from config import Settings
from ledger.errors import OpenTriageError
from ledger.ledger import Ledger
from node.console import err, fail, usage_error
from node.trail.auditing import accessed
from node.wiring import open_ledger

STUDY_HELP: Final = "Study Instance UID, as the list shows it, or as much of its end as no other study shares."
SHOWN: Final = 10
_END = re.compile(r"[0-9.]{4,64}")


def existing_ledger(settings: Settings) -> Ledger:
    """The ledger of a node that has run, or a sentence on standard error and exit status 1. Creates nothing."""
    try:
        return open_ledger(settings, must_exist=True)
    except OpenTriageError as error:
        fail(str(error))


def study_named(ledger: Ledger, text: str) -> str:
    """The study whose UID this is, or ends so; `text` itself where there is none. Several: they are listed, and exit
    status 2."""
    text = text.strip()
    if not _END.fullmatch(text):
        return text
    found = ledger.studies_ending(text, SHOWN + 1)
    if text in found or not found:
        return text
    if len(found) > 1:
        accessed(ledger, "worklist")
        more = "\nand more" if len(found) > SHOWN else ""
        usage_error(f"several studies end in {text}; give more of one of them:\n" + "\n".join(found[:SHOWN]) + more)
    err.print(f"study {found[0]}", highlight=False, soft_wrap=True)
    return found[0]
