"""Declare a setting: its type and range, its default and its description."""

from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Size = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]
Pair = Annotated[int, Field(ge=2)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(ge=0.001)]
Split = Annotated[float, Field(ge=0, le=0.9)]  # some images must be left
T = TypeVar("T")


def param(default: T, description: str) -> T:
    """Return the field of a setting that may be left out. Descriptions go into the reference."""
    return Field(default, description=description)


def required(description: str) -> Any:
    """Return the field of a setting that every file must have."""
    return Field(description=description)
