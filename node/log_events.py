"""Every event name that the node itself logs, declared once: a line of the log tells one fact."""

from typing import Final

NODE_STARTING: Final = "node_starting"
NODE_WAITING: Final = "node_waiting"  # another node holds the state folder
NODE_READY: Final = "node_ready"
NODE_STOPPING: Final = "node_stopping"
NODE_STOPPED: Final = "node_stopped"
RECONCILED: Final = "reconciled"
LOST_ACKNOWLEDGED_INSTANCE: Final = "lost_acknowledged_instance"

ROLE_STARTED: Final = "role_started"
ROLE_STOPPING: Final = "role_stopping"
ROLE_DIED: Final = "role_died"
ROLE_KILLED: Final = "role_killed"
ROLE_FAILED: Final = "role_failed"
CANNOT_LISTEN: Final = "cannot_listen"
CANNOT_SERVE: Final = "cannot_serve"  # the models that the settings ask for cannot be had
VOLUME_FAILED: Final = "volume_failed"

JOB_DONE: Final = "job_done"
JOB_RETRIED: Final = "job_retried"
JOB_PARKED: Final = "job_parked"
JOB_FAILED: Final = "job_failed"
JOB_DROPPED: Final = "job_dropped"  # the lease was lost: somebody else has it
LEASES_EXPIRED: Final = "leases_expired"
LEDGER_UNAVAILABLE: Final = "ledger_unavailable"
LOOP_FAILED: Final = "loop_failed"

MODELS_LOADED: Final = "models_loaded"
PACKAGE_PASSED_OVER: Final = "package_passed_over"  # its licence is not accepted
PACKAGE_REFUSED: Final = "package_refused"
PROVIDER_DEGRADED: Final = "provider_degraded"
INSTANCE_LOOKED_AT: Final = "instance_looked_at"
REPORT_BUILT: Final = "report_built"
OBJECT_DELIVERED: Final = "object_delivered"
OBJECT_REFUSED: Final = "object_refused"
WRONG_PATIENT_STOPPED: Final = "wrong_patient_stopped"  # what nobody can show to be its patient's stays here
OBJECT_PROVEN: Final = "object_proven"
PROOF_NOT_OFFERED: Final = "proof_not_offered"
PROOF_UNREACHABLE: Final = "proof_unreachable"
NOTICE_TAKEN: Final = "notice_taken"  # by an adapter's receiver
NOTICE_REFUSED: Final = "notice_refused"
NOTICE_NOT_NEEDED: Final = "notice_not_needed"
ADAPTER_UNREACHABLE: Final = "adapter_unreachable"
DESTINATION_UNREACHABLE: Final = "destination_unreachable"
DESTINATION_UNKNOWN: Final = "destination_unknown"
ADAPTER_UNKNOWN: Final = "adapter_unknown"

PAGE_FAILED: Final = "page_failed"
LIBRARY_MESSAGE: Final = "library_message"
UNHANDLED_ERROR: Final = "unhandled_error"
