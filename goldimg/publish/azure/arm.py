"""Resource ids, and what every resource of Azure Resource Manager has: tags, a state, an owner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from goldimg.errors import PublishFailed
from goldimg.publish.azure.faults import call
from goldimg.publish.job import Job, Session

ENDED = ("Succeeded", "Failed", "Canceled")
INTERVAL = 5.0

Body = dict[str, Any]


@dataclass(frozen=True)
class Id:
    """A resource's id, taken apart: `names` are those of the resource and its parents."""

    group: str
    kind: str  # such as Microsoft.Compute/galleries/images
    names: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Id:
        """https://learn.microsoft.com/azure/azure-resource-manager/management/overview"""
        parts = text.strip("/").split("/")
        rest = parts[5:]  # after subscriptions/<id>/resourceGroups/<name>/providers
        return cls(
            group=parts[3],
            kind="/".join(rest[:1] + rest[1::2]),
            names=tuple(rest[2::2]),
        )


def group_id(subscription: str, group: str) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/{group}"


def compute_id(subscription: str, group: str, *parts: str) -> str:
    """Such as compute_id(s, g, "images", "gold")."""
    return "/".join([group_id(subscription, group), "providers/Microsoft.Compute", *parts])


def as_body(found: Any) -> Body:
    """A resource in the words of the REST reference."""
    body: Body = found.as_dict()
    return body


def properties(found: Body) -> Body:
    inner = found.get("properties")
    return inner if isinstance(inner, dict) else {}


def state_of(found: Body) -> str:
    """Its provisioningState: Succeeded, Failed, Creating …"""
    return str(properties(found).get("provisioningState", ""))


def tags_of(found: Body) -> Mapping[str, str]:
    return found.get("tags") or {}


def is_ours(job: Job, found: Body) -> bool:
    """Whether it was made of this very image."""
    return tags_of(found).get("goldimg-sha256") == job.journal.image


def settled(
    session: Session, get: Callable[[], Body | None], *, what: str, timeout: float
) -> Body | None:
    """The resource once Azure no longer works on it; None where it is gone."""
    end = session.clock() + timeout
    while True:
        found = call(session, get, what)
        if found is None or state_of(found) in ENDED:
            return found
        if session.clock() >= end:
            raise PublishFailed(
                f"azure: {what}: still '{state_of(found)}' after {timeout / 60:.0f} min",
                hint="the same command waits on; what was sent is kept",
            )
        session.pause(INTERVAL)
