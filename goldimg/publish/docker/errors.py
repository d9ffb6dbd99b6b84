"""What the SDK, engines and registries raise: whether it passes, and as errors for people."""

from __future__ import annotations

import requests
from docker import errors

from goldimg.errors import ConfigError, GoldimgError, PublishFailed
from goldimg.publish.docker.engine import Interruption, address
from goldimg.publish.docker.registry import RegistryError
from goldimg.publish.job import Rejected, brief
from goldimg.publish.retry import PASSING


def is_transient(error: BaseException) -> bool:
    """Whether a call that raised this may do better later."""
    if isinstance(error, RegistryError):
        return error.status in PASSING
    if isinstance(error, errors.APIError):
        status = getattr(error.response, "status_code", None)
        return status in PASSING and "Digest did not match" not in str(error)
    if isinstance(error, requests.exceptions.SSLError):
        return False
    return isinstance(
        error,
        Interruption
        | requests.exceptions.ConnectionError
        | requests.exceptions.Timeout
        | requests.exceptions.ChunkedEncodingError
        | requests.exceptions.ContentDecodingError,
    )


def explained(error: BaseException, registry: str) -> GoldimgError:
    """The error for people: what was said, and what to do about it."""
    if isinstance(error, GoldimgError):
        return error
    if isinstance(error, RegistryError):
        return _explained(error, registry)
    if isinstance(error, errors.APIError):
        said = str(error.explanation or error)
        return PublishFailed(f"docker: the engine at {address()} refuses", why=said[:500])
    if isinstance(error, errors.InvalidConfigFile | errors.TLSParameterError):
        return ConfigError(f"docker: {brief(error)}")
    if isinstance(error, errors.DockerException):
        return PublishFailed(
            f"docker: no engine answers at {address()}",
            why=brief(error),
            hint="start it, or say where it is: DOCKER_HOST=unix:///run/podman/podman.sock",
        )
    return PublishFailed(f"docker: {brief(error)}")


def _explained(error: RegistryError, host: str) -> PublishFailed:
    what = f"docker: registry {host}: {error.call} was refused (HTTP {error.status})"
    said = f"{error.code}: {error.said}" if error.code else error.said
    if error.status in (401, 403):
        hint = f"log in: docker login {host}; the account must be allowed to push"
        return PublishFailed(f"docker: registry {host} refuses these credentials", why=said,
                             hint=hint)  # fmt: skip
    if error.status in (405, 501):
        return PublishFailed(what, why=said, hint="the registry's operator must allow deletion")
    if error.status in (400, 404, 413, 507):
        return Rejected(what, why=said)
    return PublishFailed(what, why=said)
