"""Section ``carb`` of params.yaml."""

import math
from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.config.base import Count, Fraction, NotNegative, Section


class CarbParams(Section):
    """Consistency-Aware Region Balancing."""

    enabled: bool
    tau: Fraction
    warmup_steps: Annotated[int, Field(ge=0, lt=2**31)] | None
    warmup_share: Fraction | None = None  # files of earlier versions have none
    base: NotNegative
    queue_size: Count
    weight: NotNegative | None
    min_weight: NotNegative

    @model_validator(mode="after")
    def _warmup_has_a_length(self) -> Self:
        if self.warmup_steps is None and self.warmup_share is None:
            raise ValueError("warmup_steps: this or carb.warmup_share must be set, got neither")
        return self

    def warmup_of(self, steps: int) -> int:
        """Warm-up steps of a training of ``steps``; ``warmup_steps`` precedes ``warmup_share``."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        assert self.warmup_share is not None
        return math.floor(self.warmup_share * steps + 1e-9)  # 0.29 * 100 is 28.999999999999996

    def active_steps(self, steps: int) -> int:
        """Number of steps, of a training of ``steps``, in which CARB acts."""
        return max(0, steps - self.warmup_of(steps)) if self.enabled else 0

    def acted(self, steps: int) -> str:
        """When CARB acts in a training of ``steps``, in words."""
        warmup = self.warmup_of(steps)
        if not self.enabled:
            return "off"
        if warmup >= steps:
            return f"never acted (warm-up of {warmup} of {steps} steps)"
        return f"after {warmup} of {steps} steps"
