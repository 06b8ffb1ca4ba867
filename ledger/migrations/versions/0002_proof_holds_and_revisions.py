"""Proof of delivery, holds, rejections, what a report rests on, and what adapters were told"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("studies", sa.Column("hold", sa.Text(), nullable=False, server_default=""))
    op.add_column("studies", sa.Column("patient_digest", sa.String(64), nullable=False, server_default=""))
    op.add_column("results", sa.Column("withdrawn", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("jobs", sa.Column("cause", sa.Text(), nullable=False, server_default=""))
    op.add_column("instances", sa.Column("patient_digest", sa.String(64), nullable=False, server_default=""))
    op.add_column("reports", sa.Column("evidence", sa.String(64), nullable=False, server_default=""))
    op.add_column("objects", sa.Column("choice", sa.String(32), nullable=False, server_default=""))
    op.add_column("objects", sa.Column("preference", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("deliveries", sa.Column("context", sa.String(200), nullable=False, server_default=""))
    op.add_column("deliveries", sa.Column("proof", sa.String(16), nullable=False, server_default="none"))
    op.add_column("deliveries", sa.Column("proof_text", sa.Text(), nullable=False, server_default=""))
    op.add_column("deliveries", sa.Column("proven_at", sa.Double(), nullable=True))
    op.create_table(
        "rejections",
        sa.Column("study_uid", sa.String(64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("code", sa.String(16), nullable=False),
        sa.Column("rejected_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("study_uid", "sop_instance_uid", name=op.f("pk_rejections")),
    )
    op.create_table(
        "report_sources",
        sa.Column("report_id", _KEY, nullable=False),
        sa.Column("instance_id", _KEY, nullable=False),
        sa.Column("source_sha256", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["report_id"], ["reports.id"], name=op.f("fk_report_sources_report_id")),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_report_sources_instance_id")),
        sa.PrimaryKeyConstraint("report_id", "instance_id", name=op.f("pk_report_sources")),
    )
    op.create_table(
        "report_models",
        sa.Column("report_id", _KEY, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["report_id"], ["reports.id"], name=op.f("fk_report_models_report_id")),
        sa.PrimaryKeyConstraint("report_id", "name", "version", name=op.f("pk_report_models")),
    )
    op.create_table(
        "notifications",
        sa.Column("report_id", _KEY, nullable=False),
        sa.Column("adapter", sa.String(160), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["report_id"], ["reports.id"], name=op.f("fk_notifications_report_id")),
        sa.PrimaryKeyConstraint("report_id", "adapter", name=op.f("pk_notifications")),
    )
    _remember_what_reports_rest_on(op.get_bind())


def _remember_what_reports_rest_on(connection: sa.Connection) -> None:
    """Reports made before this revision can be recalled and corrected too: they rest on what the study held by then.

    Their evidence stays unknown, so that an equal final statement is still not sent twice.
    """
    reports = sa.table("reports", *map(sa.column, ("id", "study_uid", "created_at")))
    instances = sa.table("instances", *map(sa.column, ("id", "received_at")))
    results = sa.table("results", *map(sa.column, ("instance_id", "study_uid", "priority", "body")))
    sources = sa.table("report_sources", *map(sa.column, ("report_id", "instance_id", "source_sha256")))
    models = sa.table("report_models", *map(sa.column, ("report_id", "name", "version", "digest")))
    said = (
        sa.select(reports.c.id.label("report_id"), results.c.instance_id, results.c.body)
        .join(results, results.c.study_uid == reports.c.study_uid)
        .join(instances, instances.c.id == results.c.instance_id)
        .where(results.c.priority.is_not(None), instances.c.received_at <= reports.c.created_at)
        .order_by(reports.c.id, results.c.instance_id)
    )
    kept: set[tuple[int, object]] = set()
    for row in connection.execute(said).mappings().all():
        model = json.loads(row["body"]).get("model")
        source = (row["report_id"], row["instance_id"])
        if source not in kept:
            connection.execute(sources.insert().values(report_id=source[0], instance_id=source[1], source_sha256=""))
            kept.add(source)
        used = (row["report_id"], (model["name"], model["version"])) if model else None
        if model and used and used not in kept:
            columns = {name: model[name] for name in ("name", "version", "digest")}
            connection.execute(models.insert().values(report_id=row["report_id"], **columns))
            kept.add(used)
