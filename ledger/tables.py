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
    Index(None, "last_received_at"),
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

# At most one final report of a study may wait at a time; PostgreSQL and SQLite both know partial indexes.
_WAITING_FINAL = text("stage = 'report' AND report_kind = 'final' AND state = 'queued'")
Index(
    "uq_jobs_waiting_final",
    jobs.c.study_uid,
    unique=True,
    sqlite_where=_WAITING_FINAL,
    postgresql_where=_WAITING_FINAL,
)
