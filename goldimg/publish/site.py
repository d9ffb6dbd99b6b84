"""Publishers by name, made with a site's options."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from typing import Any

from goldimg.config.models import Settings
from goldimg.config.publish import Publish, Sections
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


def publisher_for(
    provider: str, settings: Settings, session: Session, environment: str = ""
) -> Publisher[Any]:
    """The provider's publisher with the options of the site, or of one of its environments."""
    sections = sections_of(settings.site.publish, environment)
    return publisher_class(provider)(getattr(sections, provider), session)


def sections_of(publish: Publish, environment: str) -> Sections:
    """The settings of an environment; those for all where it is empty."""
    if not environment:
        return publish
    if environment not in publish.environments:
        raise unknown("environment", environment, tuple(publish.environments))
    return publish.environments[environment]


def unknown(kind: str, name: str, known: Sequence[str]) -> UsageError:
    """The error for a channel or an environment that the site does not have."""
    close = difflib.get_close_matches(name, known, n=1)
    return UsageError(
        f"unknown {kind} '{name}'" + (f" (did you mean '{close[0]}'?)" if close else ""),
        why="known are " + ", ".join(known) if known else "this site has none",
        hint="they stand under 'publish:' in templates/site.yml: docs/channels.md",
    )


def takers(key: str) -> list[str]:
    """The providers whose section of `publish:` has this key."""
    sections = Sections.model_fields
    return [
        name
        for name, field in sections.items()
        if isinstance(field.default, Section) and key in type(field.default).model_fields
    ]


def as_variables(
    providers: Sequence[str], flags: dict[str, str], environment: str = ""
) -> tuple[str, ...]:
    """Flags such as `regions` as `--var publish.<provider>.<key>=…`, where a provider knows them.

    With an environment they are for its section. UsageError for a flag that none of `providers`
    knows.
    """
    variables = []
    start = f"publish.environments.{environment}" if environment else "publish"
    for key, value in flags.items():
        meant = [name for name in takers(key) if name in providers]
        if not meant:
            known = ", ".join(takers(key))
            raise UsageError(
                f"--{key.replace('_', '-')} means nothing to {', '.join(providers)}",
                hint=f"it is for {known}" if known else "",
            )
        variables += [f"{start}.{name}.{key}={value}" for name in meant]
    return tuple(variables)
