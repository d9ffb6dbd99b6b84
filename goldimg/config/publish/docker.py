"""`publish.docker` of site.yml."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from goldimg.config.fields import AbsolutePath, Fault, Text, Word, matching, template
from goldimg.config.publish.common import Section, Tags

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# https://github.com/distribution/reference: domain[:port]; a repository is lower case
Registry = Annotated[
    str,
    matching(
        r"([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
        r"(:[0-9]{1,5})?",
        "must be a registry's host, such as registry.example.com:5000",
    ),
]
EMPTY = BeforeValidator(lambda value: value or None)  # so that --var can take a value away
EnvName = Annotated[str, matching(r"[A-Za-z_][A-Za-z0-9_]*", "must be a variable's name")]


class DockerPublish(Section):
    """Into which engine and registry, and what the image says of itself.

    The engine is that of DOCKER_HOST; the registry's credentials are those of `docker login`.
    """

    # Lower case is made of it; {os} is the OS file's name.
    repository: Annotated[Text, template("os", "namespace")] = Field(
        default="{namespace}/{os}", min_length=1, max_length=200
    )
    engine: bool = True  # load it into the engine
    registry: Annotated[Registry | None, EMPTY] = None  # and send it there
    plain_http: bool = False  # a registry without TLS; one on loopback is spoken to so anyway
    latest: bool = True  # tag the highest version as latest, too
    chunk: int = Field(default=16, ge=0, le=4096)  # MiB that a request sends; 0: all in one
    cmd: tuple[Text, ...] = ("/bin/bash",)
    entrypoint: tuple[Text, ...] = ()
    env: dict[EnvName, Text] = {"PATH": PATH}
    user: Word | None = None
    workdir: AbsolutePath | None = None
    tags: Tags = {}  # labels, beside ours

    @model_validator(mode="after")
    def _goes_somewhere(self) -> DockerPublish:
        if not self.engine and not self.registry:
            raise Fault("registry", "is needed where engine is false")
        return self
