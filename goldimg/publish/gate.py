"""What a version must have before it may go on: tests passed, the environment before, approval."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from goldimg.artifacts import read_finished
from goldimg.channels import read_channels
from goldimg.config.publish import Publish
from goldimg.errors import GoldimgError, UsageError
from goldimg.project import Site
from goldimg.publish.publisher import Publisher
from goldimg.publish.records import Record, records_in
from goldimg.tested import tested

MakePublisher = Callable[[str, str], Publisher[Any]]  # of a provider and an environment


def check_tested(site: Site, os_name: str, version: str, providers: Sequence[str]) -> None:
    """UsageError that names every image which was not tested, or failed, or is not finished."""
    faults, again = [], []
    for provider in providers:
        directory = site.artifact_dir(version, os_name, provider)
        finished = read_finished(directory)
        if finished is None:
            raise UsageError(
                f"{os_name} {version} is not built for {provider}",
                hint=f"goldimg list -O {os_name} shows what is finished",
            )
        result = tested(finished.manifest)
        if result is not True:
            words = "was not tested" if result is None else "failed its test"
            faults.append(f"{site.shown(directory)} {words}")
            again.append(provider)
    if faults:
        raise UsageError(
            f"{os_name} {version} is not tested",
            details=faults,
            hint=f"goldimg test {' '.join(again)} -O {os_name} --version {version}",
        )


def before(publish: Publish, environment: str) -> str:
    """The environment that versions come from; empty for the first."""
    names = list(publish.environments)
    place = names.index(environment)
    return names[place - 1] if place else ""


def is_in(site: Site, os_name: str, version: str, provider: str, environment: str) -> bool:
    """Whether the very image that stands here was published to the environment."""
    directory = site.artifact_dir(version, os_name, provider)
    return any(
        it.get("environment") == environment and it.get("image") in _digests(directory)
        for it in records_in(directory)
    )


def _digests(directory: Path) -> set[str]:
    finished = read_finished(directory)
    return {str(it.get("sha256")) for it in finished.files} if finished else set()


def check_order(
    site: Site, os_name: str, version: str, providers: Sequence[str], publish: Publish, to: str
) -> None:
    """UsageError where the environment before `to` does not have these very images."""
    former = before(publish, to)
    if not former:
        return
    missing = [it for it in providers if not is_in(site, os_name, version, it, former)]
    if missing:
        raise UsageError(
            f"{os_name} {version} cannot go to {to}",
            why=f"{former} comes before, and does not have this build for {', '.join(missing)}",
            hint=f"goldimg promote {' '.join(missing)} -O {os_name} --version {version} "
            f"--to {former}",
        )


def check_apart(providers: Sequence[str], publish: Publish, to: str, make: MakePublisher) -> None:
    """UsageError where another environment publishes to the very same place."""
    for provider in providers:
        place = make(provider, to).place
        for other in publish.environments:
            found = ""
            with contextlib.suppress(GoldimgError):  # its own settings are told when it is used
                found = make(provider, other).place if other != to else ""
            if found == place:
                raise UsageError(
                    f"{to} and {other} publish {provider} to the same place",
                    why=place,
                    hint=f"give publish.environments.{to}.{provider} settings of its own",
                )


def check_unpointed(site: Site, records: Collection[Record], environments: Collection[str]) -> None:
    """UsageError where a channel points to one of these, in the place where it is."""
    for record in records:
        names = read_channels(site, record.os_name).pointing(record.provider, record.version)
        place = record.environment
        ours = [it for it in names if (it == place if place else it not in environments)]
        if ours:
            raise UsageError(
                f"{', '.join(ours)} points to {record.os_name} {record.version} "
                f"of {record.provider}",
                hint="promote another version first, or take it back with --force",
            )
