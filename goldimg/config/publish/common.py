"""What the sections of `publish:` share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict

from goldimg.config.fields import matching


class Section(BaseModel):
    """A provider's part of `publish:`. No key of it is ever a credential."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, hide_input_in_errors=True
    )


# Tags, labels and properties of the site's own, beside goldimg's.
TagName = Annotated[str, matching(r"[A-Za-z][A-Za-z0-9_.:/-]{0,62}", "must be a tag's name")]
TagText = Annotated[str, matching(r"[^\x00-\x1f\x7f]{0,250}", "must be a tag's text, one line")]
Tags = dict[TagName, TagText]
