"""Arming a host: everything that could go wrong with its install is asked before it is allowed."""

from __future__ import annotations

from goldimg.config.models import Settings
from goldimg.config.secrets import crypt_hash
from goldimg.errors import ConfigError, GoldimgError, UsageError
from goldimg.events import Bus
from goldimg.iso.obtain import obtain_iso
from goldimg.keys import ensure_keys
from goldimg.kickstart.target import find_mirrors
from goldimg.run import Runner
from goldimg.serve.catalogue import View
from goldimg.serve.hosts import Host, find_host
from goldimg.serve.service import Service
from goldimg.serve.store import UNDER_WAY, Record


def arm_host(
    service: Service,
    name: str,
    *,
    os_name: str | None = None,
    expires: int | None = None,
    force: bool = False,
    events: Bus | None = None,
) -> Record:
    """From now on the host is installed when it asks for it, once. `expires` is in seconds.

    Its definition is checked, its kickstart rendered and validated for the release, and the ISO
    that it boots from is there afterwards (with `events`; without, it has to be there already).
    Raises UsageError, ConfigError or GoldimgError; the host is armed only where none is raised.
    """
    view = service.catalogue.view()
    host = find_host(view.hosts, name)
    if host.problems:
        raise ConfigError.of(host.problems)
    chosen = _os_of(view, host, os_name)
    before = service.store.host(name)
    if before.state in UNDER_WAY and not force:
        raise GoldimgError(
            f"{name} is being installed with {before.os}",
            why=f"it has been {before.state} for {int(service.store.clock() - before.since)} s",
            hint=f"wait, or 'goldimg host cancel {name}' first",
        )
    settings = view.settings(chosen)
    ensure_keys(service.site.keys, service.runner)  # else nobody could log in
    text = view.render(
        host.build,
        chosen,
        view.target(
            host.build,
            chosen,
            report_url=f"{service.desk.url}/report/{host.build}/{'0' * 32}",
            ks_url=service.desk.ks_url(host.build, chosen),
        ),
    )
    view.check(text, host.build, chosen)
    if settings.netboot_files is not None:
        _have_iso(service, settings, service.runner, events)
    seconds = expires or view.site_file.serve.arm_expires
    password = settings.root_pass
    return service.store.arm(
        name,
        build=host.build,
        os_name=chosen,
        # Each host its own salt, unless the site wants the original's hash.
        root_hash=crypt_hash(password, settings.site.root_salt) if password else None,
        expires=service.store.clock() + seconds,
    )


def _os_of(view: View, host: Host, os_name: str | None) -> str:
    chosen = os_name or host.os
    if chosen is None:
        raise UsageError(
            f"{host.name} has no operating system",
            hint=f"name one with -O, or write 'os:' in its file; there are {', '.join(view.oses)}",
        )
    view.settings(chosen)  # says which OS was meant
    return chosen


def _have_iso(service: Service, settings: Settings, runner: Runner, events: Bus | None) -> None:
    known = service.store.isos().get(settings.name)
    if events is None:
        if known is None or not known.is_file():
            raise GoldimgError(
                f"the ISO of {settings.name} is not here yet",
                hint=f"'goldimg host install … -O {settings.name}' on the server fetches it",
            )
        return
    mirrors = find_mirrors(settings, runner)
    cache = settings.cache_dir or service.site.cache
    iso = obtain_iso(settings, mirrors, cache, runner, events)
    service.store.set_iso(settings.name, iso.path)
