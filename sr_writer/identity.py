"""Who a result object is: the same evidence, looked at the same way, always has the same UIDs.

The identity leaves out everything that does not change what is said: ports, addresses, the time of day.
"""

import hashlib
import uuid
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from ledger.records import StudyFindings

WRITER_VERSION = "6"  # raise it when the same findings are said in other bytes


@cache
def software_version() -> str:
    """The installed version of the product, as it stands in SoftwareVersions."""
    try:
        return version("opentriage")
    except PackageNotFoundError:
        return "0"


def uid_from(*parts: str) -> str:
    """A UID of at most 44 characters: "2.25." and a UUIDv8 of the SHA-256 of `parts` (PS3.5 B.2, RFC 9562 5.8)."""
    packed = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    value = int.from_bytes(hashlib.sha256(packed).digest()[:16], "big")
    value = (value & ~(0xF << 76)) | (0x8 << 76)  # version 8
    value = (value & ~(0x3 << 62)) | (0x2 << 62)  # variant of RFC 9562
    return f"2.25.{uuid.UUID(int=value).int}"


# Who speaks, in files and on associations (PS3.7 D.3.3.2).
IMPLEMENTATION_CLASS_UID = uid_from("implementation class", "opentriage")
IMPLEMENTATION_VERSION_NAME = f"OPENTRIAGE {software_version()}"[:16]


def device_uid(installation_uid: str) -> str:
    """The Device Observer UID: one per installation and software version."""
    return uid_from("device", installation_uid, software_version())


@dataclass(frozen=True)
class Identity:
    """The names of everything one report makes. `root` holds what all of them share."""

    root: tuple[str, ...]

    def series(self, kind: str) -> str:
        return uid_from(*self.root, kind, "series")

    def instance(self, kind: str) -> str:
        return uid_from(*self.root, kind, "instance")


def identity_of(findings: StudyFindings, results_hash: str, installation_uid: str, plan: str) -> Identity:
    """The identity of a report: DESIGN.md, "identity of results".

    results_hash: Settings.results_hash now; the hash each result was made under counts too. plan: `Plan.name`.
    What a report follows, and how many were made before it, is part of it: the same evidence, told anew after a
    withdrawal, is another document, whether or not the first one ever left.
    """
    evidence = sorted(f"{seen.instance.sop_instance_uid} {seen.instance.sha256}" for seen in findings.looked_at)
    results = [result for seen in findings.looked_at for result in seen.results]
    models = sorted({result.model.digest for result in results if result.model is not None})
    hashes = sorted({results_hash, *(result.settings_hash for result in results)})
    return Identity(
        (
            installation_uid,
            findings.study_instance_uid,
            *(f"evidence {item}" for item in evidence),
            *(f"model {item}" for item in models),
            *(f"settings {item}" for item in hashes),
            f"{WRITER_VERSION} {software_version()}",
            plan,
            findings.kind.value,
            f"revision {findings.revision}",
            *(f"after {item.sop_instance_uid}" for item in findings.predecessors),
        )
    )


def tracking_uid(installation_uid: str, sop_instance_uid: str, model_name: str, label: str) -> str:
    """The Tracking Unique Identifier of one finding on one image: stable over revisions, so feedback can name it."""
    return uid_from("tracking", installation_uid, sop_instance_uid, model_name, label)
