"""Importing without the garbage collector. A role imports a thousand modules, and nothing of them ever becomes garbage;
yet the collector walks over what there is again and again while it grows, and over all of it at the end of the process:
together a third of the processor time of a start and a stop.
"""

import gc


def begin() -> None:
    """Until `end` nothing is collected. Called where a program begins, never by what is imported."""
    gc.disable()


def end() -> None:
    """What is imported stays: after `begin` the collector may run again, and never looks at it. Without it, nothing."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
