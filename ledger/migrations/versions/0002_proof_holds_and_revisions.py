"""Proof of delivery, holds, rejections, what a report rests on, and what adapters were told"""

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
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("study_uid", sa.String(64), nullable=False),
        sa.Column("code", sa.String(16), nullable=False),
        sa.Column("rejected_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_rejections")),
    )
    op.create_index(op.f("ix_rejections_study_uid"), "rejections", ["study_uid"], unique=False)
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
