"""Docker: the root file system as an image, in an engine (Docker, Podman) and in a registry."""

from goldimg.publish.docker.publisher import DockerPublisher as PUBLISHER

__all__ = ["PUBLISHER"]
