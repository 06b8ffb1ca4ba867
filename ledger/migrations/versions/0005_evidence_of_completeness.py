"""What decides that a study is complete, how its senders send, and which presentation contexts they did not get"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("due_because", sa.Text(), nullable=False, server_default=""))
    op.create_table(
        "arrival_gaps",
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("between", sa.Boolean(), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("calling_ae_title", "between", "bucket", name=op.f("pk_arrival_gaps")),
    )
    _peers()
    _stated_contents()


def _peers() -> None:
    op.create_table(
        "peers",
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("associations", sa.BigInteger(), nullable=False),
        sa.Column("instances", sa.BigInteger(), nullable=False),
        sa.Column("first_at", sa.Double(), nullable=False),
        sa.Column("last_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("calling_ae_title", name=op.f("pk_peers")),
    )
    op.create_table(
        "refused_contexts",
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("abstract_syntax", sa.String(64), nullable=False),
        sa.Column("transfer_syntaxes", sa.Text(), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("first_at", sa.Double(), nullable=False),
        sa.Column("last_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint(
            "calling_ae_title", "abstract_syntax", "transfer_syntaxes", "reason", name=op.f("pk_refused_contexts")
        ),
    )


def _stated_contents() -> None:
    op.create_table(
        "stated_contents",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("listed", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("limit_s", sa.Double(), nullable=False),
        sa.Column("stated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stated_contents")),
    )
    op.create_table(
        "stated_studies",
        sa.Column("statement_id", _KEY, nullable=False),
        sa.Column("study_uid", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["statement_id"], ["stated_contents.id"], name=op.f("fk_stated_studies_statement_id")),
        sa.ForeignKeyConstraint(["study_uid"], ["studies.study_uid"], name=op.f("fk_stated_studies_study_uid")),
        sa.PrimaryKeyConstraint("statement_id", "study_uid", name=op.f("pk_stated_studies")),
    )
    op.create_index(op.f("ix_stated_studies_study_uid"), "stated_studies", ["study_uid"], unique=False)
    op.create_table(
        "awaited_instances",
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("statement_id", _KEY, nullable=False),
        sa.ForeignKeyConstraint(
            ["statement_id"], ["stated_contents.id"], name=op.f("fk_awaited_instances_statement_id")
        ),
        sa.PrimaryKeyConstraint("sop_instance_uid", "statement_id", name=op.f("pk_awaited_instances")),
    )
    op.create_index(op.f("ix_awaited_instances_statement_id"), "awaited_instances", ["statement_id"], unique=False)
