"""What all models of files that users write have in common."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, model_validator


class Written(BaseModel):
    """Frozen, no unknown keys; an empty value is no value, so that defaults apply."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, hide_input_in_errors=True
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        return {key: value for key, value in data.items() if value is not None and value != ""}
