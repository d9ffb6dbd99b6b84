"""An image of one layer: its configuration, its manifest, their digests. Pure.

The configuration holds nothing of the run, so that the same artifact and settings are the same
image, by the same digests, wherever and however often it is published.
https://github.com/opencontainers/image-spec/blob/main/config.md
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from goldimg.config.publish.docker import DockerPublish
from goldimg.errors import PublishFailed
from goldimg.publish.image import File, Image

# GOARCH for what uname(1) says: https://github.com/opencontainers/image-spec (platform)
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x"}
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
LABEL = "goldimg-sha256"  # what engines find our images by
OCI = "org.opencontainers.image."  # annotations.md of the image specification
# https://github.com/distribution/reference/blob/main/regexp.go
PART = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class Content:
    """What an image consists of, beside its layer's bytes.

    `layer` is the compressed tar; `diff_id` the digest of what is in it, as `sha256:<hex>`.
    """

    image: Image
    options: DockerPublish
    layer: File
    diff_id: str

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration."""
        run: dict[str, Any] = {
            "Env": [f"{key}={value}" for key, value in self.options.env.items()],
            "Cmd": list(self.options.cmd) or None,
            "Entrypoint": list(self.options.entrypoint) or None,
            "User": self.options.user,
            "WorkingDir": self.options.workdir,
            "Labels": self.labels,
        }
        history = {"created": self.created, "created_by": "goldimg", "comment": self.image.name}
        return {
            "created": self.created,
            "architecture": ARCHITECTURES[self.image.architecture],
            "os": "linux",
            "config": {key: value for key, value in run.items() if value},
            "rootfs": {"type": "layers", "diff_ids": [self.diff_id]},
            "history": [history],
        }

    @property
    def created(self) -> str:
        """When the artifact was built, in RFC 3339."""
        built = str(self.image.manifest.get("built", ""))
        try:
            moment = datetime.fromisoformat(built).astimezone(UTC)
        except ValueError:
            moment = datetime.fromtimestamp(0, UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def labels(self) -> dict[str, str]:
        """Labels by the OCI's names, ours, and the site's over them."""
        ours = {
            f"{OCI}title": self.image.os_name,
            f"{OCI}version": self.image.version,
            f"{OCI}created": self.created,
            f"{OCI}vendor": self.image.namespace,
            "goldimg-os": self.image.os_name,
            "goldimg-version": self.image.version,
            "goldimg-builder": self.image.builder,
            LABEL: self.layer.sha256,
        }
        found = {key: value for key, value in ours.items() if value}
        return dict(sorted({**found, **self.options.tags}.items()))

    @cached_property
    def config_bytes(self) -> bytes:
        """The configuration as it is stored: its digest is the image's id."""
        return json.dumps(self.config, separators=(",", ":"), sort_keys=True).encode()

    @property
    def id(self) -> str:
        """The id that engines give it."""
        return digest(self.config_bytes)

    @property
    def layer_digest(self) -> str:
        """The layer's digest in a registry: it is the artifact's own SHA-256."""
        return f"sha256:{self.layer.sha256}"

    @cached_property
    def manifest_bytes(self) -> bytes:
        """The manifest, as a registry stores it."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {
                "mediaType": CONFIG_TYPE,
                "digest": self.id,
                "size": len(self.config_bytes),
            },
            "layers": [
                {
                    "mediaType": LAYER_TYPE,
                    "digest": self.layer_digest,
                    "size": self.layer.size,
                }
            ],
        }
        return json.dumps(manifest, separators=(",", ":")).encode()

    @property
    def manifest_digest(self) -> str:
        """What a registry calls it by."""
        return digest(self.manifest_bytes)

    def is_it(self, inspected: Mapping[str, Any]) -> bool:
        """Whether an engine's image is this one.

        An engine whose store names images by their manifest has another id for it: then the layer,
        the platform and all that a container inherits must be the same.
        """
        if inspected.get("Id") == self.id:
            return True
        there, here = inspected.get("Config") or {}, self.config["config"]
        keys = ("Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels")
        return (
            (inspected.get("RootFS") or {}).get("Layers") == [self.diff_id]
            and inspected.get("Architecture") == self.config["architecture"]
            and inspected.get("Os") == self.config["os"]
            and all((there.get(key) or None) == (here.get(key) or None) for key in keys)
        )


def digest(data: bytes) -> str:
    """A digest as registries and engines write it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def repository(image: Image, options: DockerPublish) -> str:
    """The repository's path, in lower case; PublishFailed where the grammar does not allow it."""
    name = options.repository.format(os=image.os_name, namespace=image.namespace).lower()
    if not all(PART.fullmatch(part) for part in name.split("/")) or len(name) > 255:
        raise PublishFailed(
            f"docker: '{name}' cannot be a repository",
            why="its parts may hold letters, digits, and . _ - between them",
            hint="set publish.docker.repository in templates/site.yml",
        )
    return name


def tag(image: Image) -> str:
    """The version as a tag."""
    if not TAG.fullmatch(image.version):
        raise PublishFailed(f"docker: version {image.version} cannot be a tag")
    return image.version
