"""What every block of settings is."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Checked once, never changed, and no word in it that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")
