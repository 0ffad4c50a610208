"""Declare a setting: its type and range, its default and its description."""

from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

MOST = 1_000_000_000  # no count of anything is larger

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Size = Annotated[int, Field(ge=1, le=MOST)]
Number = Annotated[int, Field(ge=0, le=MOST)]
Pair = Annotated[int, Field(ge=2, le=65_536)]
Width = Annotated[int, Field(ge=1, le=65_536)]  # of a layer or a vector
Hidden = Annotated[int, Field(ge=0, le=65_536)]  # 0: no such layer
Layers = Annotated[int, Field(ge=1, le=256)]
Batch = Annotated[int, Field(ge=1, le=65_536)]  # images in memory at once
Weight = Annotated[float, Field(ge=0, le=1e6)]
Rate = Annotated[float, Field(ge=0, le=10)]  # above, every training diverges
Clip = Annotated[float, Field(ge=1e-6, le=1e6)]  # 0 would hold all weights still
Share = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, le=0.95)]  # something must be left
Temperature = Annotated[float, Field(ge=0.001, le=1000)]
Split = Annotated[float, Field(ge=0, le=0.9)]  # some images must be left
Cosine = Annotated[float, Field(ge=-1, le=1)]
Angle = Annotated[float, Field(ge=0, le=180)]
Cutoff = Annotated[int, Field(ge=1, le=100_000)]
T = TypeVar("T")


def param(default: T, description: str) -> T:
    """Return the field of a setting that may be left out. Descriptions go into the reference."""
    return Field(default, description=description)


def required(description: str) -> Any:
    """Return the field of a setting that every file must have."""
    return Field(description=description)
