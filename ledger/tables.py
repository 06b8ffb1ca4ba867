"""The ledger's tables. Times are seconds since 1970 (UTC) by the database's clock, so that leases compare alike."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

metadata = MetaData(
    naming_convention={"ix": "ix_%(column_0_N_label)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s",
                       "fk": "fk_%(table_name)s_%(column_0_name)s", "pk": "pk_%(table_name)s"}
)  # fmt: skip

Key = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers only an INTEGER PRIMARY KEY by itself
Uid = String(64)

installation = Table(
    "installation",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("value", Text, nullable=False),
)

studies = Table(
    "studies",
    metadata,
    Column("study_uid", Uid, primary_key=True),
    Column("is_prior", Boolean, nullable=False),
    Column("first_received_at", Double, nullable=False),
    Column("last_received_at", Double, nullable=False),
    Column("completed_at", Double),  # NULL while images may still come
    Column("priority", String(16)),  # of the images looked at so far; only rises while the study is open
    Column("hold", Text, nullable=False, server_default=""),  # why nothing may leave; "" while it may
    Column("patient_digest", String(64), nullable=False, server_default=""),  # that all instances agree on
    Column("is_heartbeat", Boolean, nullable=False, server_default=false()),  # our own: counted nowhere
    Column("images_removed_at", Double),  # by retention, or because the study was to be forgotten
    Column("results_removed_at", Double),
    Index(None, "last_received_at"),
)
Index(
    "ix_studies_heartbeats",  # hardly any: what leaves them out must not read all studies for it
    studies.c.study_uid,
    sqlite_where=text("is_heartbeat = 1"),
    postgresql_where=text("is_heartbeat"),
)

instances = Table(
    "instances",
    metadata,
    Column("id", Key, primary_key=True),
    Column("study_uid", Uid, ForeignKey("studies.study_uid"), nullable=False, index=True),
    Column("series_uid", Uid, nullable=False),
    Column("sop_class_uid", Uid, nullable=False),
    Column("sop_instance_uid", Uid, nullable=False),
    Column("transfer_syntax_uid", Uid, nullable=False),
    Column("modality", String(16), nullable=False),
    Column("sha256", String(64), nullable=False),  # of the data set's bytes as received
    Column("size_bytes", BigInteger, nullable=False),  # of the stored file
    Column("path", String(160), nullable=False, unique=True),  # relative to the store
    Column("disposition", String(16), nullable=False),
    Column("version", Integer, nullable=False),  # 2 and more: other bytes came under the same SOP Instance UID
    Column("calling_ae_title", String(16), nullable=False),
    Column("peer_address", String(64), nullable=False),
    Column("association_id", String(64), nullable=False),
    Column("message_priority", Integer, nullable=False),
    Column("received_at", Double, nullable=False),
    Column("patient_digest", String(64), nullable=False, server_default=""),  # keyed hash; "" where nothing is known
    Column("removed_at", Double),  # its file went with time (ledger.retention); the same bytes may come again
    UniqueConstraint("sop_instance_uid", "sha256"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Key, primary_key=True),
    Column("stage", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("study_uid", Uid, ForeignKey("studies.study_uid"), nullable=False, index=True),
    Column("instance_id", Key, ForeignKey("instances.id")),
    Column("report_kind", String(16)),
    Column("report_id", Key, ForeignKey("reports.id")),
    Column("destination", String(160)),
    Column("rank", Integer, nullable=False),  # 0 is most urgent
    Column("queued_at", Double, nullable=False),
    Column("due_at", Double, nullable=False),  # not to be claimed before
    Column("attempts", Integer, nullable=False),  # counted at the claim, before the work can kill anybody
    Column("generation", Integer, nullable=False),  # fencing token: moves with every claim
    Column("lease_owner", String(160)),
    Column("lease_expires_at", Double),
    Column("reason", Text, nullable=False),  # of the last failure, a sentence
    Column("finished_at", Double),
    Column("cause", Text, nullable=False, server_default=""),  # why a study is reported anew or withdrawn
    Column("due_because", Text, nullable=False, server_default=""),  # of a final report: what makes its study complete
    Index(None, "stage", "state", "rank", "due_at"),
)

# Instances that must not be used (IHE IOCM). The note may come before what it rejects.
rejections = Table(
    "rejections",
    metadata,
    Column("study_uid", Uid, primary_key=True),  # a note speaks for the study that it lies in
    Column("sop_instance_uid", Uid, primary_key=True),
    Column("code", String(16), nullable=False),  # code value of the note's document title
    Column("rejected_at", Double, nullable=False),
)

results = Table(
    "results",
    metadata,
    Column("id", Key, primary_key=True),
    Column("instance_id", Key, ForeignKey("instances.id"), nullable=False, index=True),
    Column("study_uid", Uid, ForeignKey("studies.study_uid"), nullable=False, index=True),
    Column("status", String(16), nullable=False),
    Column("priority", String(16)),
    Column("body", Text, nullable=False),  # records.ImageResult as JSON
    Column("created_at", Double, nullable=False),
    Column("withdrawn", Boolean, nullable=False, server_default=false()),  # said, and taken back
)

reports = Table(
    "reports",
    metadata,
    Column("id", Key, primary_key=True),
    Column("study_uid", Uid, ForeignKey("studies.study_uid"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("priority", String(16), nullable=False),
    Column("statement", String(64), nullable=False),  # hash of what it says: equal statements are not sent twice
    Column("evidence", String(64), nullable=False, server_default=""),  # hash of what a final report rests on
    Column("created_at", Double, nullable=False),
    Column("reported_at", Double),  # the content time of its objects; unknown of reports made before revision 0004
    Column("is_shadow", Boolean, nullable=False, server_default=false()),  # made in shadow mode: sent to nobody
    Column("last_byte_at", Double),  # the newest image was here; NULL: no clock runs for it
    Index(None, "created_at"),
)

report_sources = Table(
    "report_sources",
    metadata,
    Column("report_id", Key, ForeignKey("reports.id"), primary_key=True),
    Column("instance_id", Key, ForeignKey("instances.id"), primary_key=True),
    Column("source_sha256", String(64), nullable=False),  # as the analysis computed it
)

report_models = Table(
    "report_models",
    metadata,
    Column("report_id", Key, ForeignKey("reports.id"), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("version", String(32), primary_key=True),
    Column("digest", String(64), nullable=False),
)

# What each adapter was told of each report.
notifications = Table(
    "notifications",
    metadata,
    Column("report_id", Key, ForeignKey("reports.id"), primary_key=True),
    Column("adapter", String(160), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("tries", Integer, nullable=False),  # how often it was sent, or told
    Column("changed_at", Double, nullable=False),
)

objects = Table(
    "objects",
    metadata,
    Column("id", Key, primary_key=True),
    Column("report_id", Key, ForeignKey("reports.id"), nullable=False, index=True),
    Column("kind", String(32), nullable=False),
    Column("sop_class_uid", Uid, nullable=False),
    Column("sop_instance_uid", Uid, nullable=False, unique=True),  # an existing UID is never rebuilt
    Column("series_uid", Uid, nullable=False),
    Column("transfer_syntax_uid", Uid, nullable=False),
    Column("sha256", String(64), nullable=False),  # of the whole file
    Column("path", String(160), nullable=False, unique=True),
    Column("choice", String(32), nullable=False, server_default=""),  # one of a choice is sent
    Column("preference", Integer, nullable=False, server_default="0"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("object_id", Key, ForeignKey("objects.id"), primary_key=True),
    Column("destination", String(160), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("status", Integer),  # of the last C-STORE-RSP
    Column("reason", Text, nullable=False),
    Column("tries", Integer, nullable=False),  # how often it was sent, or told
    Column("changed_at", Double, nullable=False),
    Column("context", String(200), nullable=False, server_default=""),  # as negotiated
    Column("proof", String(16), nullable=False, server_default="none"),
    Column("proof_text", Text, nullable=False, server_default=""),
    Column("proven_at", Double),
    Column("times_missing", Integer, nullable=False, server_default="0"),  # accepted, and not there when asked
)

# What destinations were asked to commit (PS3.4 J).
commitments = Table(
    "commitments",
    metadata,
    Column("transaction_uid", Uid, primary_key=True),
    Column("destination", String(160), nullable=False),
    Column("asked_at", Double, nullable=False),
    Column("accepted_at", Double),  # the request was taken
    Column("answered_at", Double),  # the first N-EVENT-REPORT
    Column("addresses", Text, nullable=False, server_default=""),  # of the destination when it was asked, with spaces
)

commitment_objects = Table(
    "commitment_objects",
    metadata,
    Column("transaction_uid", Uid, ForeignKey("commitments.transaction_uid"), primary_key=True),
    Column("sop_instance_uid", Uid, primary_key=True),
    Column("job_id", Key, ForeignKey("jobs.id"), nullable=False, index=True),
    Column("reason", Integer),  # NULL: nothing said; 0: committed; else the Failure Reason (0008,1197)
    Column("is_read", Boolean, nullable=False),  # the proof job has used the answer
)

# What senders asked us to commit (PS3.4 J), and whether they heard what we said.
commitment_requests = Table(
    "commitment_requests",
    metadata,
    Column("id", Key, primary_key=True),
    Column("calling_ae_title", String(16), nullable=False),
    Column("transaction_uid", Uid, nullable=False),
    Column("digest", String(64), nullable=False),  # of the list: the same request may come again
    Column("is_duplicate", Boolean, nullable=False),  # another list came under the same Transaction UID
    Column("state", String(16), nullable=False),
    Column("asked_at", Double, nullable=False),
    Column("patience_until", Double, nullable=False),  # what is listed may still be on its way
    Column("due_at", Double, nullable=False),  # not to be claimed before
    Column("attempts", Integer, nullable=False),
    Column("generation", Integer, nullable=False),  # fencing token: moves with every claim
    Column("lease_owner", String(160)),
    Column("lease_expires_at", Double),
    Column("judged_at", Double),  # the files were read again
    Column("ended_at", Double),  # confirmed or parked
    Column("status", Integer),  # of the last N-EVENT-REPORT-RSP
    Column("reason", Text, nullable=False, server_default=""),  # why it was not heard yet, a sentence
    UniqueConstraint("calling_ae_title", "transaction_uid", "digest"),
    Index("ix_commitment_requests_due", "state", "calling_ae_title", "due_at"),
)

commitment_request_items = Table(
    "commitment_request_items",
    metadata,
    Column("request_id", Key, ForeignKey("commitment_requests.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("sop_class_uid", Uid, nullable=False),  # as listed
    Column("sop_instance_uid", Uid, nullable=False),
    Column("reason", Integer),  # NULL: not judged; 0: we keep it; else the Failure Reason (0008,1197)
)

# Stored files that are not what was received, until they are healed (ledger.damage).
damaged_files = Table(
    "damaged_files",
    metadata,
    Column("instance_id", Key, ForeignKey("instances.id"), primary_key=True, autoincrement=False),
    Column("found_at", Double, nullable=False),
)

# Files that no row promises any more, until they are gone from the disk (ledger.removal).
removals = Table(
    "removals",
    metadata,
    Column("path", String(160), primary_key=True),  # relative to the store
    Column("queued_at", Double, nullable=False),
)

# Of studies whose reports were removed, by keyed hash: how many there were. No later report takes the UIDs of theirs.
removed_reports = Table(
    "removed_reports",
    metadata,
    Column("study_key", String(64), primary_key=True),  # as in audit_records
    Column("count", Integer, nullable=False),
    Column("removed_at", Double, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", Key, primary_key=True),
    Column("study_uid", Uid, nullable=False, index=True),
    Column("instance_id", Key),
    Column("job_id", Key),
    Column("at", Double, nullable=False),
    Column("name", String(48), nullable=False),
    Column("text", Text, nullable=False),
)

# What was done, by whom, to what. Rows are added and never changed; ledger.audit writes, ledger.sealing chains them.
audit_records = Table(
    "audit_records",
    metadata,
    Column("id", Key, primary_key=True),
    Column("at", Double, nullable=False),
    Column("kind", String(32), nullable=False),  # ledger.audit.AuditKind
    Column("outcome", Integer, nullable=False),  # 0 success, 4 minor, 8 serious, 12 major failure (PS3.15 A.5)
    Column("actor", String(160), nullable=False),  # "ae:CT1", "user:NAME", "node:analyse"
    Column("peer", String(64), nullable=False),  # network address; "" for the node itself
    Column("study_key", String(64), nullable=False, index=True),  # keyed hash of the Study Instance UID, or ""
    Column("patient_key", String(64), nullable=False),  # keyed hash, or ""
    Column("detail", Text, nullable=False),  # JSON; never a patient's name or id
    Index(None, "at"),
)

# The chain: each seal's digest is made of the one before and the whole record.
audit_seals = Table(
    "audit_seals",
    metadata,
    Column("sequence", Key, primary_key=True, autoincrement=False),
    Column("record_id", Key, ForeignKey("audit_records.id"), nullable=False, unique=True),
    Column("digest", String(64), nullable=False),
    Column("sealed_at", Double, nullable=False),
)

# How far each audit record repository has been told.
audit_cursors = Table(
    "audit_cursors",
    metadata,
    Column("repository", String(160), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("changed_at", Double, nullable=False),
    Column("holder", String(160), nullable=False),  # the process that tells it now
    Column("held_until", Double, nullable=False),
)

# Who may use the HTTP interface. Of a token only its hash is kept.
access_tokens = Table(
    "access_tokens",
    metadata,
    Column("id", Key, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),  # read, operate, admin
    Column("digest", String(64), nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
)

web_sessions = Table(
    "web_sessions",
    metadata,
    Column("digest", String(64), primary_key=True),  # of the cookie
    Column("token_id", Key, ForeignKey("access_tokens.id"), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
)

# What radiologists said of findings; the newest of each person holds.
opinions = Table(
    "opinions",
    metadata,
    Column("id", Key, primary_key=True),
    Column("study_uid", Uid, ForeignKey("studies.study_uid"), nullable=False, index=True),
    Column("instance_id", Key, ForeignKey("instances.id"), nullable=False),
    Column("model", String(64), nullable=False),
    Column("version", String(32), nullable=False),
    Column("label", String(64), nullable=False),
    Column("present", Boolean, nullable=False),  # what the model had said when the reader judged it
    Column("agrees", Boolean, nullable=False),
    Column("by", String(64), nullable=False),  # the name of an access token
    Column("at", Double, nullable=False),
)

# How each sender sends: seconds between successive images of one study, in classes that double (ledger.arrivals).
arrival_gaps = Table(
    "arrival_gaps",
    metadata,
    Column("calling_ae_title", String(16), primary_key=True),
    Column("between", Boolean, primary_key=True),  # the second image came over another association than the first
    Column("bucket", Integer, primary_key=True),
    Column("count", BigInteger, nullable=False),
)

# Who has called us.
peers = Table(
    "peers",
    metadata,
    Column("calling_ae_title", String(16), primary_key=True),
    Column("associations", BigInteger, nullable=False),
    Column("instances", BigInteger, nullable=False),
    Column("first_at", Double, nullable=False),
    Column("last_at", Double, nullable=False),
)

# What callers did not get: presentation contexts, where images are lost before they are sent; associations; success.
refused_contexts = Table(
    "refused_contexts",
    metadata,
    Column("calling_ae_title", String(16), primary_key=True),
    Column("abstract_syntax", Uid, primary_key=True),  # "invalid" where it is no UID; for others than contexts a word
    Column("transfer_syntaxes", Text, primary_key=True),  # as proposed, spaces between them
    Column("reason", String(32), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("first_at", Double, nullable=False),
    Column("last_at", Double, nullable=False),
)

# Our own studies that went the whole path, or did not: what stays of them when they are removed (ledger.heartbeats).
heartbeats = Table(
    "heartbeats",
    metadata,
    Column("study_uid", Uid, primary_key=True),
    Column("machine", String(160), nullable=False, index=True),  # that sent it to itself
    Column("sop_instance_uid", Uid, nullable=False),
    Column("sha256", String(64), nullable=False),  # of the data set: nothing else is taken for it
    Column("registered_at", Double, nullable=False),
    Column("received_at", Double),
    Column("looked_at", Double),
    Column("reported_at", Double),
    Column("delivered_at", Double),  # the objects were read back whole
    Column("ended_at", Double),  # removed, whatever came of it
    Column("failure", Text, nullable=False, server_default=""),  # what kept it, a sentence
)

# How many first reports fell due at a destination so far, by [slo], and how many were not there by then.
slo_tally = Table(
    "slo_tally",
    metadata,
    Column("kind", String(16), primary_key=True),  # of the report
    Column("priority", String(16), primary_key=True),
    Column("due", BigInteger, nullable=False),
    Column("late", BigInteger, nullable=False),
)

# Lists in which senders said what they sent (requests for Storage Commitment), while something of them may be missing.
stated_contents = Table(
    "stated_contents",
    metadata,
    Column("id", Key, primary_key=True),
    Column("calling_ae_title", String(16), nullable=False),
    Column("listed", Integer, nullable=False),  # instances
    Column("digest", String(64), nullable=False),  # of the list: the same request may come again
    Column("limit_s", Double, nullable=False),  # missing instances are waited for so long from the first image
    Column("stated_at", Double, nullable=False),
)

stated_studies = Table(
    "stated_studies",
    metadata,
    Column("statement_id", Key, ForeignKey("stated_contents.id"), primary_key=True),
    Column("study_uid", Uid, ForeignKey("studies.study_uid"), primary_key=True, index=True),
)

awaited_instances = Table(
    "awaited_instances",
    metadata,
    Column("sop_instance_uid", Uid, primary_key=True),
    Column("statement_id", Key, ForeignKey("stated_contents.id"), primary_key=True, index=True),
)

# At most one final report of a study may wait at a time; PostgreSQL and SQLite both know partial indexes.
WAITING_FINAL = text("stage = 'report' AND report_kind = 'final' AND state = 'queued'")
Index(
    "uq_jobs_waiting_final",
    jobs.c.study_uid,
    unique=True,
    sqlite_where=WAITING_FINAL,
    postgresql_where=WAITING_FINAL,
)
