"""Every event name that the node itself logs, declared once: a line of the log tells one fact."""

from typing import Final

NODE_STARTING: Final = "node_starting"
NODE_WAITING: Final = "node_waiting"  # another node holds the state folder
NODE_READY: Final = "node_ready"
NODE_STUCK: Final = "node_stuck"  # the service manager is not told that it lives, and will start it again
SERVICE_NOT_TOLD: Final = "service_not_told"  # the service manager does not listen
NODE_STOPPING: Final = "node_stopping"
NODE_STOPPED: Final = "node_stopped"
RECONCILED: Final = "reconciled"
CLOCK_STEPPED: Final = "clock_stepped"  # the wall clock was set; what is due was moved along
LOST_ACKNOWLEDGED_INSTANCE: Final = "lost_acknowledged_instance"

ROLE_STARTED: Final = "role_started"
ROLE_CONFINED: Final = "role_confined"  # it gave up what it does not need
ROLE_NOT_CONFINED: Final = "role_not_confined"  # or not all of it: missing says what this machine cannot hold back
STATE_MENDED: Final = "state_mended"  # what others could read in state_dir they cannot any more
ROLE_STOPPING: Final = "role_stopping"
ROLE_DIED: Final = "role_died"
ROLE_KILLED: Final = "role_killed"
ROLE_FAILED: Final = "role_failed"
RECEIVERS_RENEWED: Final = "receivers_renewed"
RECEIVER_LEFT: Final = "receiver_left"  # it was replaced
RECEIVER_STUCK: Final = "receiver_stuck"  # it lives and takes no callers: it is replaced
CANNOT_LISTEN: Final = "cannot_listen"
CANNOT_SERVE: Final = "cannot_serve"  # the models that the settings ask for cannot be had
STORE_FULL: Final = "store_full"  # less is free than receive.free_disk_min_bytes: instances are refused
VOLUME_FAILED: Final = "volume_failed"
CERTIFICATE_EXPIRES: Final = "certificate_expires"

HEARTBEAT_ARRIVED: Final = "heartbeat_arrived"
HEARTBEAT_MISSED: Final = "heartbeat_missed"

JOB_DONE: Final = "job_done"
JOB_RETRIED: Final = "job_retried"
JOB_PARKED: Final = "job_parked"
JOB_FAILED: Final = "job_failed"
JOB_DROPPED: Final = "job_dropped"  # the lease was lost: somebody else has it
LEASES_EXPIRED: Final = "leases_expired"
LEDGER_UNAVAILABLE: Final = "ledger_unavailable"  # once, then each minute (node/running/outage.py)
LEDGER_BACK: Final = "ledger_back"
LOOP_FAILED: Final = "loop_failed"
NOT_COUNTED: Final = "not_counted"  # a process found no room for its counters; its next start tries again
NOTICE_NOT_WRITTEN: Final = "notice_not_written"  # what a role says of itself; once a minute, it is tried again

MODELS_LOADED: Final = "models_loaded"
FINDING_UNKNOWN: Final = "finding_unknown"  # the settings name one that no installed model finds: misspelt?
PACKAGE_PASSED_OVER: Final = "package_passed_over"  # its licence is not accepted
PACKAGE_REFUSED: Final = "package_refused"
PROVIDER_DEGRADED: Final = "provider_degraded"
INSTANCE_LOOKED_AT: Final = "instance_looked_at"
REPORT_BUILT: Final = "report_built"
OBJECT_DELIVERED: Final = "object_delivered"
OBJECT_REFUSED: Final = "object_refused"
WRONG_PATIENT_STOPPED: Final = "wrong_patient_stopped"  # what nobody can show to be its patient's stays here
OBJECT_PROVEN: Final = "object_proven"
COUNT_NOT_KNOWN: Final = "count_not_known"  # study.count_at
PROOF_NOT_OFFERED: Final = "proof_not_offered"
PROOF_UNREACHABLE: Final = "proof_unreachable"
COMMITMENT_ASKED: Final = "commitment_asked"  # the one place where the transaction's UID is told
COMMITMENT_TOLD: Final = "commitment_told"  # a sender heard what we keep of what it sent
COMMITMENT_PARKED: Final = "commitment_parked"
COMMITMENT_FILE_DAMAGED: Final = "commitment_file_damaged"
REQUESTOR_UNREACHABLE: Final = "requestor_unreachable"
NOTICE_TAKEN: Final = "notice_taken"  # by an adapter's receiver
NOTICE_REFUSED: Final = "notice_refused"
NOTICE_NOT_NEEDED: Final = "notice_not_needed"
ADAPTER_UNREACHABLE: Final = "adapter_unreachable"
DESTINATION_UNREACHABLE: Final = "destination_unreachable"
DESTINATION_PUTS_OFF: Final = "destination_puts_off"
DESTINATION_UNKNOWN: Final = "destination_unknown"
ADAPTER_UNKNOWN: Final = "adapter_unknown"

IMAGES_REMOVED: Final = "images_removed"  # with time (docs/retention.md)
RESULTS_REMOVED: Final = "results_removed"
QUARANTINE_EMPTIED: Final = "quarantine_emptied"
REMOVALS_FINISHED: Final = "removals_finished"  # files that a crash had left to be deleted

AUDIT_HEAD: Final = "audit_head"  # a point of the audit trail's chain, kept outside the ledger
AUDIT_HEAD_NOT_EXPORTED: Final = "audit_head_not_exported"
AUDIT_HEADS_UNREAD: Final = "audit_heads_unread"
AUDIT_CHAIN_BROKEN: Final = "audit_chain_broken"  # an exported head is not in the chain any more
AUDIT_REPOSITORY_TOLD: Final = "audit_repository_told"
AUDIT_REPOSITORY_UNREACHABLE: Final = "audit_repository_unreachable"

DRIFT_FOUND: Final = "drift_found"  # of images, or of what a model makes of them (docs/monitoring.md)

CONNECTIONS_DROPPED: Final = "connections_dropped"  # of the HTTP port, that only sat there; once a minute
PAGE_FAILED: Final = "page_failed"
UPLOADS_SWEPT: Final = "uploads_swept"  # an earlier process was killed while they were looked at
LOOK_FAILED: Final = "look_failed"  # an upload or a picture; routed images have their own
LOOK_REFUSED: Final = "look_refused"  # another user's process knocked
LOOK_NOT_SERVED: Final = "look_not_served"  # uploads and pictures cannot be had
LIBRARY_MESSAGE: Final = "library_message"
UNHANDLED_ERROR: Final = "unhandled_error"
