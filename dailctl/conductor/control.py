"""What a person wants of a run: `control.json` in its record. `dailctl cancel` and its like write it, the conductor reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

KEY = "control.json"
"""Key of the record's data. It has a field manager of its own, so neither `dailctl submit` nor Helm ever touches it."""
MANAGER = "dailctl-control"

Desired = Literal["run", "suspend", "cancel"]


class Control(BaseModel):
    """The wish."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    desired: Desired = "run"
    """`run`; `suspend`: free every pod of the stages, keep results and wait; `cancel`: the same, and end."""
    generation: int = 0
    """A run that ended (failed, cancelled) starts again where this is above its status' generation."""


def read_control(record: Mapping[str, str]) -> Control:
    """The wish in a record's data; without one, or where it cannot be read, that the run runs.

    A damaged wish must not cancel a run of days.
    """
    try:
        return Control.model_validate_json(record[KEY]) if KEY in record else Control()
    except ValidationError:
        return Control()
