"""Requests for storage commitment that senders make of us: what they listed, and whether they heard the answer"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "commitment_requests",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("is_duplicate", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("patience_until", sa.Double(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(160), nullable=True),
        sa.Column("lease_expires_at", sa.Double(), nullable=True),
        sa.Column("judged_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment_requests")),
        sa.UniqueConstraint(
            "calling_ae_title",
            "transaction_uid",
            "digest",
            name=op.f("uq_commitment_requests_calling_ae_title_transaction_uid_digest"),
        ),
    )
    op.create_index(
        op.f("ix_commitment_requests_due"),
        "commitment_requests",
        ["state", "calling_ae_title", "due_at"],
        unique=False,
    )
    op.create_table(
        "commitment_request_items",
        sa.Column("request_id", _KEY, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("sop_class_uid", sa.String(64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("reason", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["request_id"], ["commitment_requests.id"], name=op.f("fk_commitment_request_items_request_id")
        ),
        sa.PrimaryKeyConstraint("request_id", "position", name=op.f("pk_commitment_request_items")),
    )
