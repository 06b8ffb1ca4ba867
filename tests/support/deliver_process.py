"""Deliver roles to be killed: python -m tests.support.deliver_process CONFIG FAULT

Imports everything once; each line on standard input forks one process that is the deliver role, whose pid is printed,
and "gone" when it has ended. FAULT: "none", or a way to break a promise on purpose, so that the test that counts is
seen to find it.
"""

import os
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from config import load_settings
from ledger.records import StoredObject
from node.logging import configure
from node.roles import deliver as role
from sr_writer import deliver
from sr_writer.guard import Guard


def fresh_uids() -> None:
    """Each send gives the object another SOP Instance UID, as a writer that builds its objects anew would."""
    real = deliver._c_store

    def store(association: Any, context: Any, item: StoredObject, data: bytes, *more: Any) -> int | None:
        fresh = item.sop_instance_uid[:-8] + f"{random.SystemRandom().randrange(10**7, 10**8)}"
        renamed = data.replace(item.sop_instance_uid.encode(), fresh.encode())
        return real(association, context, replace(item, sop_instance_uid=fresh), renamed, *more)

    deliver._c_store = store


def unguarded() -> None:
    """Nobody looks at whose an object is before it leaves."""
    Guard.prove = lambda self, item, content: None  # type: ignore[method-assign]


FAULTS = {"none": lambda: None, "fresh_uids": fresh_uids, "unguarded": unguarded}


def main(config: Path, fault: str) -> None:
    FAULTS[fault]()
    print("ready", flush=True)
    for _ in sys.stdin:
        if (pid := os.fork()) == 0:
            configure("info", "deliver")
            os._exit(role.run(load_settings(config)))
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("gone", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
