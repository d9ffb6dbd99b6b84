"""What a machine is told to load, as values; which machine is told what is decided in `desk`."""

from __future__ import annotations

from dataclasses import replace

from goldimg.config.models import Settings
from goldimg.config.serve import Serve
from goldimg.netboot import Entry
from goldimg.serve.catalogue import View
from goldimg.serve.hosts import Host
from goldimg.serve.store import Record

MAC_NAME = "mac-"  # begins the names of hosts that no file describes


def host_of(view: View, name: str, record: Record) -> Host | None:
    """What a host is installed by: its own file, or the one for unknown machines."""
    if name in view.hosts:
        return view.hosts[name]
    build = view.site_file.serve.netboot.unknown_build
    if name.startswith(MAC_NAME) and record.armed and record.build == build and build:
        common = view.hosts.get(build.partition("/")[2])
        if common is not None:
            return Host(name=name, options=common.options, problems=common.problems, via=build)
    return None


def macs_of(host: Host) -> tuple[str, ...]:
    """The MAC addresses of a host; one that no file describes has its address in its name."""
    if host.via and host.name.startswith(MAC_NAME):
        digits = host.name.removeprefix(MAC_NAME)
        return (":".join(digits[at : at + 2] for at in range(0, 12, 2)),)
    return host.mac


def make_entry(
    settings: Settings, serve: Serve, url: str, *, ks_url: str, mac: str, title: str
) -> Entry | None:
    """The installer of an OS with its arguments; None where it cannot be loaded from here.

    `url` is the server's, `mac` the card that the machine starts from, or empty.
    """
    files = settings.netboot_files
    if files is None:
        return None
    bootif = f"01-{mac.replace(':', '-')}" if mac else ""
    words = files.arguments.format(
        ks_url=ks_url, tree_url=tree_url(settings, serve, url), bootif=bootif
    ).split()
    return Entry(
        title=title,
        os=settings.name,
        kernel=files.kernel,
        initrd=files.initrd,
        # A machine known by its serial number has no MAC address to name.
        arguments=tuple(word for word in words if not word.endswith("=")),
    )


def by_hand(entry: Entry, ks_url: str) -> Entry:
    """The same installer without a kickstart: a person answers its questions."""
    kept = tuple(word for word in entry.arguments if ks_url not in word)
    return replace(entry, arguments=kept)


def tree_url(settings: Settings, serve: Serve, url: str) -> str:
    """Where the installer finds its second stage: the ISO's tree here, or the mirror."""
    ours = f"{url}/tree/{settings.name}"
    is_ours = settings.os.installer.kind == "debian-packages" or serve.repository == "iso"
    return ours if is_ours else settings.repo_url() or ours
