"""Clients of the SDK, and what the steps of one publication share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import ProfileNotFound

from goldimg import __version__
from goldimg.config.publish.aws import AwsPublish
from goldimg.errors import PublishFailed
from goldimg.publish.job import Job

T = TypeVar("T")
CONNECT, READ = 10.0, 60.0  # seconds; of the SDK's own retries there are none
STATE = "goldimg-state"  # the tag of what is not whole yet, see publisher.UNFINISHED


COPY = "goldimg-copy-of"  # the tag of an image that was copied from another region


class Clients:
    """The SDK's clients, one for each service and region. Safe to use from several threads."""

    def __init__(self, profile: str | None, connections: int) -> None:
        try:
            self._session = boto3.Session(profile_name=profile)
        except ProfileNotFound as error:
            raise PublishFailed(
                f"aws: {error}",
                hint="check publish.aws.profile, or 'aws configure list-profiles'",
            ) from error
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str], Any] = {}
        self.config = Config(
            connect_timeout=CONNECT,
            read_timeout=READ,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=connections + 2,
            tcp_keepalive=True,
            user_agent_extra=f"goldimg/{__version__}",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )

    @property
    def region(self) -> str | None:
        """The region that the SDK's chain names: environment, then profile."""
        found: str | None = self._session.region_name
        return found

    def get(self, service: str, region: str) -> Any:
        """The client of a service in a region."""
        with self._lock:  # a session is not safe to make clients from in several threads
            key = (service, region)
            if key not in self._made:
                self._made[key] = self._session.client(
                    service, region_name=region, config=self.config
                )
            return self._made[key]


@dataclass(frozen=True, kw_only=True)
class Work:
    """One publication on its way: `region` is where the image is made."""

    job: Job
    options: AwsPublish
    clients: Clients
    region: str

    def call(self, service: str, operation: str, *, region: str = "", **given: Any) -> Any:
        """What an operation of a service returns, retried by the one policy."""
        function: Callable[..., Any] = getattr(
            self.clients.get(service, region or self.region), operation
        )
        return self.job.call(lambda: function(**given), what=operation)

    def key(self, region: str) -> str:
        """The ARN of the KMS key in the region; the EBS direct API takes neither alias nor id."""
        found = self.call("kms", "describe_key", region=region, KeyId=self.options.kms_key)
        return str(found["KeyMetadata"]["Arn"])

    @property
    def tags(self) -> dict[str, str]:
        """The tags of images, snapshots and objects: the site's, goldimg's, and the name."""
        return {**self.options.tags, "Name": self.job.image.name, **self.job.tags}


def interval(work: Work) -> float:
    """Seconds between two looks at something that takes minutes."""
    return min(work.options.poll, work.options.timeout / 10)


def as_tags(tags: dict[str, str]) -> list[dict[str, str]]:
    """Tags as EC2 and EBS take them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def from_tags(resource: dict[str, Any]) -> dict[str, str]:
    """The tags that a described resource has."""
    return {tag["Key"]: tag.get("Value", "") for tag in resource.get("Tags", ())}
