"""The ranges that the numbers of the configs share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Dropout = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
