"""Publishers by name, made with a site's options."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from goldimg.config.models import Settings
from goldimg.config.publish import Publish
from goldimg.config.publish.common import Section
from goldimg.errors import MissingTool, UsageError
from goldimg.publish.job import Session
from goldimg.publish.publisher import Publisher


def publisher_class(provider: str) -> type[Publisher[Any]]:
    """The provider's publisher; MissingTool where its SDK is not installed."""
    try:
        module = importlib.import_module(f"goldimg.publish.{provider}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("goldimg"):
            raise
        raise MissingTool(
            f"publishing to {provider} needs the Python package of '{error.name}'",
            hint=f"pip install 'goldimg[{provider}]'",
        ) from error
    found: type[Publisher[Any]] = module.PUBLISHER
    return found


def publisher_for(provider: str, settings: Settings, session: Session) -> Publisher[Any]:
    """The provider's publisher with the options of the site."""
    return publisher_class(provider)(getattr(settings.site.publish, provider), session)


def takers(key: str) -> list[str]:
    """The providers whose section of `publish:` has this key."""
    sections = Publish.model_fields
    return [
        name
        for name, field in sections.items()
        if isinstance(field.default, Section) and key in type(field.default).model_fields
    ]


def as_variables(providers: Sequence[str], flags: dict[str, str]) -> tuple[str, ...]:
    """Flags such as `regions` as `--var publish.<provider>.<key>=…`, where a provider knows them.

    UsageError for a flag that none of `providers` knows.
    """
    variables = []
    for key, value in flags.items():
        meant = [name for name in takers(key) if name in providers]
        if not meant:
            known = ", ".join(takers(key))
            raise UsageError(
                f"--{key.replace('_', '-')} means nothing to {', '.join(providers)}",
                hint=f"it is for {known}" if known else "",
            )
        variables += [f"publish.{name}.{key}={value}" for name in meant]
    return tuple(variables)
