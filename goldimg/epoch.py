"""SOURCE_DATE_EPOCH: https://reproducible-builds.org/specs/source-date-epoch/"""

from __future__ import annotations

import os
from collections.abc import Mapping

from goldimg.errors import ConfigError


def source_date(environ: Mapping[str, str] = os.environ) -> int | None:
    """The time that a build is to tell, in seconds since 1970; None where nobody says.

    ConfigError where it is said in another form.
    """
    said = environ.get("SOURCE_DATE_EPOCH", "")
    if said and not said.isdecimal():
        raise ConfigError(f"SOURCE_DATE_EPOCH is {said!r}", hint="seconds since 1970, or unset it")
    return int(said) if said else None
