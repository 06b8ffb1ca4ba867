"""What keeps a node in order beside its work; each module is one chore with `run`. The role `keep` runs them all."""

import threading
from collections.abc import Callable
from typing import TypeAlias

from config import Settings
from ledger.ledger import Ledger

Chore: TypeAlias = Callable[[Settings, Ledger, threading.Event], None]
"""Runs until the event is set. What it raises ends the role, which the supervisor starts again."""
