"""Counters of the receiver. Labels come from small closed sets, never from the wire.

What an alert asks for is there from 0 on: an increase to the first one is seen only where the counter was there before.
"""

from prometheus_client import Counter, Gauge

from scp.status import REFUSALS

INSTANCES = Counter(
    "opentriage_receive_instances_total",
    "C-STORE requests answered, by outcome (new, resent, uid_conflict, refused) and status",
    ["outcome", "status"],
)
BYTES = Counter("opentriage_receive_bytes_total", "Data set bytes received")
ASSOCIATIONS_ACCEPTED = Counter("opentriage_receive_associations_accepted_total", "Associations accepted")
ASSOCIATIONS_REJECTED = Counter(
    "opentriage_receive_associations_rejected_total", "Associations rejected, by reason", ["reason"]
)
ASSOCIATIONS_ABORTED = Counter(
    "opentriage_receive_associations_aborted_total",
    "Associations that ended without a release, by reason (the limit that fired, or the peer)",
    ["reason"],
)
ASSOCIATIONS_OPEN = Gauge(
    "opentriage_receive_associations_open", "Associations established now", multiprocess_mode="livesum"
)
CONNECTIONS_REFUSED = Counter(
    "opentriage_receive_connections_refused_total", "Connections that became no association, by reason", ["reason"]
)
TLS_FAILED = Counter(
    "opentriage_receive_tls_failed_total", "TLS handshakes that failed, by reason (scp.network.tls.Reason)", ["reason"]
)
CONTEXTS_REFUSED = Counter(
    "opentriage_receive_contexts_refused_total",
    "Presentation contexts refused, by reason (abstract_syntax, transfer_syntax)",
    ["reason"],
)
QUARANTINED = Counter("opentriage_receive_quarantined_total", "Broken data sets kept in quarantine")

for _status in REFUSALS:
    INSTANCES.labels("refused", f"0x{_status:04X}")
