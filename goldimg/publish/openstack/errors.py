"""What the SDK and Glance raise, as errors for people."""

from __future__ import annotations

from goldimg.errors import ConfigError, GoldimgError, PublishFailed
from goldimg.publish.job import Rejected, brief
from goldimg.publish.openstack.glance import GlanceError

LOGIN = "check the cloud's entry in clouds.yaml, or the OS_* variables: openstack token issue"
HINTS = {
    401: LOGIN,
    403: "the role of this user does not allow it; see docs/upload-openstack.md",
    409: "somebody else changed the image meanwhile; try again",
}
# What no second attempt with the same artifact can overcome.
FINAL = {
    400: "see publish.openstack in templates/site.yml",
    413: "the project's quota, or the cloud's largest image, is smaller: remove images, or ask for "
    "more; 'goldimg gc openstack' removes what was left unfinished",
    415: "the cloud takes no such disk format; ask which ones it does",
}


def explained(error: BaseException, target: str) -> GoldimgError:
    """The error for people: what the service said, and what to do about it."""
    from keystoneauth1 import exceptions as auth
    from openstack import exceptions as sdk

    if isinstance(error, GoldimgError):
        return error
    if isinstance(error, GlanceError):
        what = f"openstack: {error.call} was refused (HTTP {error.status})"
        if error.status >= 500 or error.status == 429:
            what = f"openstack: {error.call} failed again and again (HTTP {error.status})"
        if error.status in FINAL:
            return Rejected(what, why=error.said, hint=FINAL[error.status])
        return PublishFailed(what, why=error.said, hint=HINTS.get(error.status, ""))
    if isinstance(
        error, sdk.ConfigException | auth.MissingRequiredOptions | auth.MissingAuthPlugin
    ):
        return ConfigError(f"openstack: {brief(error)}", hint=LOGIN)
    if isinstance(error, auth.Unauthorized | auth.AuthorizationFailure):
        return PublishFailed(f"openstack: {target} refuses these credentials", hint=LOGIN)
    if isinstance(error, auth.ConnectionError | auth.DiscoveryFailure | auth.CatalogException):
        return PublishFailed(
            f"openstack: {target} does not answer as an image service should",
            why=brief(error),
            hint="check auth_url and region_name of the cloud, and the network",
        )
    return PublishFailed(f"openstack: {brief(error)}")
