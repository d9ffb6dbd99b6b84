"""What `upload --env` and `promote` ask for before anything goes to an environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from goldimg.cli.common import new_runner
from goldimg.cli.publish import confirm, quiet_publisher

if TYPE_CHECKING:
    from goldimg.config.models import Settings
    from goldimg.project import Site


def pass_gate(
    site: Site,
    settings: Settings,
    environment: str,
    names: list[str],
    version: str | None,
    *,
    yes: bool,
) -> None:
    """Raises where these images may not go to the environment, or where nobody approves.

    Only the first environment takes what was not tested: it is for trying things. Without a
    version the newest of each provider is meant.
    """
    from goldimg.publish.gate import before, check_apart, check_order, check_tested
    from goldimg.publish.image import find_image
    from goldimg.publish.site import sections_of

    publish, runner = settings.site.publish, new_runner()
    sections_of(publish, environment)  # an unknown one is told first
    chosen_versions = {it: find_image(site, settings, it, version).version for it in names}
    for number in dict.fromkeys(chosen_versions.values()):
        mine = [it for it in names if chosen_versions[it] == number]
        if before(publish, environment):
            check_tested(site, settings.name, number, mine)
        check_order(site, settings.name, number, mine, publish, environment)
        check_apart(
            mine,
            publish,
            environment,
            lambda name, it: quiet_publisher(settings, name, it, runner),
        )
        if publish.environments[environment].approval:
            what = f"{settings.name} {number} for {', '.join(mine)}"
            confirm(yes, f"{environment} wants approval: let {what} go there?")
