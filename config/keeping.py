"""Settings of what keeps a node in order: what is removed with time, the heartbeat, what is promised."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from config.frozen import Frozen


class RetentionSettings(Frozen):
    images_days: Annotated[float, Field(ge=0)] = 0.0
    results_days: Annotated[float, Field(ge=0)] = 0.0
    quarantine_days: Annotated[float, Field(ge=0)] = 0.0
    without_proof: Literal["keep", "accepted"] = "keep"
    sweep_every_s: PositiveFloat = 600.0

    @model_validator(mode="after")
    def _images_first(self) -> "RetentionSettings":
        if self.results_days and not 0 < self.images_days <= self.results_days:
            raise ValueError(
                f"results_days = {self.results_days:g} is not kept longer than the images (images_days = "
                f"{self.images_days:g}, 0 is for ever): results go with the images or after them"
            )
        return self


class HeartbeatSettings(Frozen):
    every_s: Annotated[float, Field(ge=0)] = 300.0


class SloSettings(Frozen):
    high_s: PositiveFloat = 1.0
    medium_s: PositiveFloat = 180.0
    not_assessed_s: PositiveFloat = 180.0
    low_s: PositiveFloat = 180.0
    objective: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.99
