"""What every section of the job file shares: camelCase keys, unknown keys refused, docstrings as schema
descriptions."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Section(BaseModel):
    """A part of the job file. Python names are snake_case; the file uses camelCase, as Kubernetes does."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=False,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
        strict=False,
        ser_json_inf_nan="constants",
    )
