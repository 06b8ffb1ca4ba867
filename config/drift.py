"""Settings of the watch over what images and answers are like from week to week."""

from datetime import date
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from config.frozen import Frozen


class DriftSettings(Frozen):
    every_s: Annotated[float, Field(ge=0)] = 3600.0
    recent_days: PositiveInt = 7
    reference_days: PositiveInt = 28
    since: date = date(1970, 1, 1)
    studies_min: Annotated[int, Field(ge=20)] = 100
    psi: PositiveFloat = 0.2
    share: PositiveFloat = 0.25
    false_alarms: Annotated[float, Field(gt=0.0, le=0.1)] = 0.002

    @model_validator(mode="after")
    def _reference_is_longer(self) -> "DriftSettings":
        if self.reference_days < 2 * self.recent_days:
            raise ValueError(
                f"reference_days = {self.reference_days} is less than twice recent_days = {self.recent_days}"
            )
        return self
