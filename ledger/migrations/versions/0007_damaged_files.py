"""Stored files that were found damaged or gone, until they are healed"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "damaged_files",
        sa.Column("instance_id", _KEY, autoincrement=False, nullable=False),
        sa.Column("found_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_damaged_files_instance_id")),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_damaged_files")),
    )
