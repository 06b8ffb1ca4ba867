"""What a hospital needs: the audit trail, who may look, what readers said, shadow mode, retention, the heartbeat"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_TRAIL = ("audit_records", "audit_seals")
_NEVER = "the audit trail is only ever added to"
_REFUSE = f"""CREATE FUNCTION audit_trail_refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '{_NEVER}'; END $$"""


def _wall_up() -> None:
    """The database itself refuses to change or delete what the trail holds."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_REFUSE)
        for table in _TRAIL:
            op.execute(
                f"CREATE TRIGGER {table}_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION audit_trail_refuse()"
            )
        return
    for table in _TRAIL:
        for what in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{what} BEFORE {what.upper()} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{_NEVER}'); END"
            )


def _wall_down() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table in _TRAIL:
            op.execute(f"DROP TRIGGER {table}_only_grows ON {table}")
        op.execute("DROP FUNCTION audit_trail_refuse()")
        return
    for table in _TRAIL:
        for what in ("update", "delete"):
            op.execute(f"DROP TRIGGER {table}_no_{what}")


def upgrade() -> None:
    op.create_table(
        "access_tokens",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_access_tokens_digest")),
        sa.UniqueConstraint("name", name=op.f("uq_access_tokens_name")),
    )
    op.create_table(
        "audit_cursors",
        sa.Column("repository", sa.String(length=160), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.Column("holder", sa.String(length=160), nullable=False),
        sa.Column("held_until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("repository", name=op.f("pk_audit_cursors")),
    )
    op.create_table(
        "audit_records",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("outcome", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(length=160), nullable=False),
        sa.Column("peer", sa.String(length=64), nullable=False),
        sa.Column("study_key", sa.String(length=64), nullable=False),
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_records")),
    )
    op.create_index(op.f("ix_audit_records_at"), "audit_records", ["at"], unique=False)
    op.create_index(op.f("ix_audit_records_study_key"), "audit_records", ["study_key"], unique=False)
    op.create_table(
        "audit_seals",
        sa.Column("sequence", _KEY, autoincrement=False, nullable=False),
        sa.Column("record_id", _KEY, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("sealed_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["record_id"], ["audit_records.id"], name=op.f("fk_audit_seals_record_id")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit_seals")),
        sa.UniqueConstraint("record_id", name=op.f("uq_audit_seals_record_id")),
    )
    _wall_up()
    op.create_table(
        "web_sessions",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("token_id", _KEY, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["token_id"], ["access_tokens.id"], name=op.f("fk_web_sessions_token_id")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_web_sessions")),
    )
    op.create_table(
        "opinions",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("instance_id", _KEY, nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("label", sa.String(length=64), nullable=False),
        sa.Column("present", sa.Boolean(), nullable=False),
        sa.Column("agrees", sa.Boolean(), nullable=False),
        sa.Column("by", sa.String(length=64), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_opinions_instance_id")),
        sa.ForeignKeyConstraint(["study_uid"], ["studies.study_uid"], name=op.f("fk_opinions_study_uid")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_opinions")),
    )
    op.create_index(op.f("ix_opinions_study_uid"), "opinions", ["study_uid"], unique=False)
    op.add_column("reports", sa.Column("is_shadow", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("studies", sa.Column("is_heartbeat", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("studies", sa.Column("images_removed_at", sa.Double(), nullable=True))
    op.add_column("studies", sa.Column("results_removed_at", sa.Double(), nullable=True))
    op.add_column("instances", sa.Column("removed_at", sa.Double(), nullable=True))
    op.create_table(
        "removals",
        sa.Column("path", sa.String(length=160), nullable=False),
        sa.Column("queued_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_removals")),
    )
    op.create_table(
        "removed_reports",
        sa.Column("study_key", sa.String(length=64), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("removed_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("study_key", name=op.f("pk_removed_reports")),
    )
    op.create_index(
        "ix_studies_heartbeats",
        "studies",
        ["study_uid"],
        unique=False,
        sqlite_where=sa.text("is_heartbeat = 1"),
        postgresql_where=sa.text("is_heartbeat"),
    )
    op.add_column("reports", sa.Column("last_byte_at", sa.Double(), nullable=True))
    op.create_index(op.f("ix_reports_created_at"), "reports", ["created_at"], unique=False)
    op.create_table(
        "heartbeats",
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("machine", sa.String(length=160), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("registered_at", sa.Double(), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=True),
        sa.Column("looked_at", sa.Double(), nullable=True),
        sa.Column("reported_at", sa.Double(), nullable=True),
        sa.Column("delivered_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("failure", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("study_uid", name=op.f("pk_heartbeats")),
    )
    op.create_index(op.f("ix_heartbeats_machine"), "heartbeats", ["machine"], unique=False)
    op.create_table(
        "slo_tally",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.String(length=16), nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=False),
        sa.Column("late", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "priority", name=op.f("pk_slo_tally")),
    )
    op.add_column("commitments", sa.Column("addresses", sa.Text(), server_default="", nullable=False))
    _hide_transactions()


def _hide_transactions() -> None:
    """Whoever knows the UID of a transaction knows half of what an answer to it needs: no sentence names one."""
    find = sa.func.strpos if op.get_bind().dialect.name == "postgresql" else sa.func.instr
    for name, text, mark, end in (
        ("events", "text", " (transaction ", "."),
        ("deliveries", "proof_text", ", transaction ", ")."),
    ):
        column: sa.ColumnClause[str] = sa.column(text, sa.Text())
        table, start = sa.table(name, column), find(column, mark)
        kept = sa.func.substr(column, 1, start - 1, type_=sa.Text()) + end
        op.execute(table.update().where(start > 0).values({text: kept}))


def downgrade() -> None:
    """What the older release would misread goes too; `opentriage ledger rollback` has kept it in files."""
    reports, studies = _table("reports"), _table("studies")
    _forget_reports(sa.select(reports.c.id).where(reports.c.is_shadow))  # said to nobody: nothing to revise or withdraw
    _forget_studies(
        sa.select(studies.c.study_uid).where(studies.c.is_heartbeat)
    )  # it would be a patient like any other
    op.execute("DELETE FROM installation WHERE key = 'audit_since'")  # a later upgrade begins a new trail
    _drop_what_is_new()


def _table(name: str) -> sa.TableClause:
    kinds = {"is_shadow": sa.Boolean(), "is_heartbeat": sa.Boolean()}
    columns = ("id", "study_uid", "report_id", "instance_id", "object_id", "job_id", *kinds)
    return sa.table(name, *(sa.column(column, kinds.get(column)) for column in columns))


def _delete(name: str, column: str, which: sa.Select[tuple[object]]) -> None:
    table = _table(name)
    op.execute(table.delete().where(table.c[column].in_(which)))


def _forget_reports(which: sa.Select[tuple[object]]) -> None:
    """As if these reports had not been made."""
    jobs, objects = _table("jobs"), _table("objects")
    _delete("commitment_objects", "job_id", sa.select(jobs.c.id).where(jobs.c.report_id.in_(which)))
    _delete("deliveries", "object_id", sa.select(objects.c.id).where(objects.c.report_id.in_(which)))
    for name in ("jobs", "objects", "report_sources", "report_models", "notifications"):
        _delete(name, "report_id", which)
    _delete("reports", "id", which)


def _forget_studies(which: sa.Select[tuple[object]]) -> None:
    """As if they had not come."""
    jobs, reports, instances = _table("jobs"), _table("reports"), _table("instances")
    _delete("opinions", "study_uid", which)
    _forget_reports(sa.select(reports.c.id).where(reports.c.study_uid.in_(which)))
    _delete("commitment_objects", "job_id", sa.select(jobs.c.id).where(jobs.c.study_uid.in_(which)))
    for name in ("report_sources", "damaged_files"):
        _delete(name, "instance_id", sa.select(instances.c.id).where(instances.c.study_uid.in_(which)))
    for name in ("jobs", "results", "rejections", "stated_studies", "events", "instances", "studies"):
        _delete(name, "study_uid", which)


def _drop_what_is_new() -> None:
    op.drop_table("removed_reports")
    op.drop_table("removals")
    op.drop_column("instances", "removed_at")
    op.drop_table("slo_tally")
    op.drop_column("commitments", "addresses")
    op.drop_index(op.f("ix_heartbeats_machine"), table_name="heartbeats")
    op.drop_table("heartbeats")
    op.drop_index(op.f("ix_reports_created_at"), table_name="reports")
    op.drop_column("reports", "last_byte_at")
    op.drop_index("ix_studies_heartbeats", table_name="studies")
    op.drop_column("studies", "results_removed_at")
    op.drop_column("studies", "images_removed_at")
    op.drop_column("studies", "is_heartbeat")
    op.drop_column("reports", "is_shadow")
    op.drop_index(op.f("ix_opinions_study_uid"), table_name="opinions")
    op.drop_table("opinions")
    op.drop_table("web_sessions")
    _wall_down()
    op.drop_table("audit_seals")
    op.drop_index(op.f("ix_audit_records_study_key"), table_name="audit_records")
    op.drop_index(op.f("ix_audit_records_at"), table_name="audit_records")
    op.drop_table("audit_records")
    op.drop_table("audit_cursors")
    op.drop_table("access_tokens")
