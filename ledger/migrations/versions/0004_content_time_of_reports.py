"""The content time that a report's objects carry: what a later report calls it by"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("reports", sa.Column("reported_at", sa.Double(), nullable=True))
