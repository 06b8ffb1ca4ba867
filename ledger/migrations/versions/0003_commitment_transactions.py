"""What destinations were asked to commit (Storage Commitment, PS3.4 J), and how often an object was not there"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("times_missing", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "commitments",
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("destination", sa.String(160), nullable=False),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("accepted_at", sa.Double(), nullable=True),
        sa.Column("answered_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("transaction_uid", name=op.f("pk_commitments")),
    )
    op.create_table(
        "commitment_objects",
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("job_id", _KEY, nullable=False),
        sa.Column("reason", sa.Integer(), nullable=True),
        sa.Column("is_read", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["transaction_uid"], ["commitments.transaction_uid"], name=op.f("fk_commitment_objects_transaction_uid")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_commitment_objects_job_id")),
        sa.PrimaryKeyConstraint("transaction_uid", "sop_instance_uid", name=op.f("pk_commitment_objects")),
    )
    op.create_index(op.f("ix_commitment_objects_job_id"), "commitment_objects", ["job_id"], unique=False)
