"""dnsmasq's configuration for starting machines over the network: pure text.

As a DHCP proxy it gives no addresses: it answers PXE clients beside the site's DHCP server, with
no more than what to load and from where (dnsmasq(8), --dhcp-range with `proxy`, --pxe-service).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path

from goldimg.config.serve import Netboot

# Client system architectures (RFC 4578, 2.1; registry: https://www.iana.org/assignments/
# dhcpv6-parameters, "Processor Architecture Types"): 0 BIOS, 7 and 9 UEFI x86-64, 16 the same
# over HTTP. Option 175 is what iPXE's own requests carry (https://ipxe.org/howto/dhcpd).
BIOS, UEFI, HTTP = (0,), (7, 9), (16,)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where dnsmasq serves, as whom, and what it writes."""

    interface: str
    address: IPv4Interface  # of that interface, with its network
    tftp_root: Path
    lease_file: Path
    user: str | None = None  # whose rights it takes on; None: it keeps those it was started with

    @property
    def hosts_dir(self) -> Path:
        return self.lease_file.with_name("hosts")


@dataclass(frozen=True, kw_only=True)
class Config:
    """The configuration, and beside it the machines, which dnsmasq reads anew while it runs.

    A file each in a directory that it watches: on HUP, which would read a single file anew, dnsmasq
    2.90 aborts once a machine of that file has had an answer.
    """

    text: str
    hosts: Mapping[str, str]  # line by MAC address
    hosts_dir: Path


def config(
    netboot: Netboot,
    place: Place,
    base_url: str,
    shims: Mapping[str, str],
    oses: Iterable[str],
) -> Config:
    """What dnsmasq is told: TFTP and DHCP on one interface, no DNS, nothing of /etc.

    Where UEFI machines start a signed shim and GRUB, `oses` are those that have one, and `shims`
    gives the OS of each machine that is to be installed, by MAC address: a shim starts only kernels
    that its own vendor signed. As a DHCP server dnsmasq gives the first of `oses` to all others,
    whose GRUB then starts the disk. As a proxy it does not answer them at all: GRUB asks the server
    that gave the address, so that it needs `next-server` there to be us, and stays at its prompt
    otherwise. Nor can a proxy serve UEFI's HTTP boot, which takes its URL only from the server that
    gives the address: that one must give `<base_url>/netboot/files/snponly.efi`.
    """
    is_proxy, names = netboot.mode == "proxy", sorted(oses)
    signed = netboot.loader == "grub" or netboot.secure_boot
    lines = [*_service(place), *_addresses(netboot, place), *_clients()]
    for tags, name in _files(netboot, base_url, names if signed else []):
        lines += _proxy_lines(tags, name) if is_proxy else _server_lines(tags, name)
    hosts = {mac: f"{mac},set:{_tag(name)}" for mac, name in shims.items() if name in names}
    return Config(
        text="# Written by goldimg; changes are lost.\n" + "".join(f"{line}\n" for line in lines),
        hosts=hosts if signed else {},
        hosts_dir=place.hosts_dir,
    )


def no_os(mac: str) -> str:
    """The line of a machine that is no longer to be installed."""
    return f"{mac},set:no-os"


def _service(place: Place) -> list[str]:
    return [
        "port=0",  # no DNS
        "no-hosts",
        "no-resolv",
        "no-ident",
        f"interface={place.interface}",
        "except-interface=lo",
        "bind-interfaces",
        "keep-in-foreground",
        "log-facility=-",
        "pid-file",
        *([f"user={place.user}"] if place.user else []),
        "enable-tftp",
        f"tftp-root={place.tftp_root}",
        "tftp-secure",
        "tftp-max=1000",
        f"dhcp-leasefile={place.lease_file}",
        f"dhcp-hostsdir={place.hosts_dir}",
    ]


def _addresses(netboot: Netboot, place: Place) -> list[str]:
    network = place.address.network
    if netboot.mode == "proxy":
        return [f"dhcp-range={network.network_address},proxy,{network.netmask}"]
    first, _, last = (netboot.dhcp_range or "").partition("-")
    lines = [f"dhcp-range={first},{last},{network.netmask},1h", "dhcp-authoritative"]
    # Without a value dnsmasq sends no option at all, instead of itself.
    lines.append(f"dhcp-option=option:router{',' + netboot.router if netboot.router else ''}")
    if netboot.nameservers:
        lines.append("dhcp-option=option:dns-server," + ",".join(netboot.nameservers))
    return lines


def _clients() -> list[str]:
    arches = {"bios": BIOS, "uefi": UEFI, "http": HTTP}
    return [
        "dhcp-match=set:ipxe,175",
        *(
            f"dhcp-match=set:{name},option:client-arch,{number}"
            for name, numbers in arches.items()
            for number in numbers
        ),
        # Clients take a file's name from its own field; options in its place confuse some.
        "dhcp-no-override",
    ]


def _files(
    netboot: Netboot, base_url: str, oses: Sequence[str]
) -> list[tuple[tuple[str, ...], str]]:
    """(tags, file or URL) of every kind of client; `oses` are those with signed loaders."""
    script = f"{base_url}/boot.ipxe"
    if netboot.loader == "grub":
        files: list[tuple[tuple[str, ...], str]] = [(("bios",), "pxelinux.0")]
    else:
        files = [(("bios", "!ipxe"), "undionly.kpxe"), (("bios", "ipxe"), script)]
    if netboot.loader == "ipxe" and not netboot.secure_boot:
        return [
            *files,
            (("uefi", "!ipxe"), "snponly.efi"),
            (("uefi", "ipxe"), script),
            (("http", "!ipxe"), f"{base_url}/netboot/files/snponly.efi"),
            (("http", "ipxe"), script),
        ]
    files += [(("uefi", _tag(name)), f"{name}/shimx64.efi") for name in oses]
    if oses and netboot.mode == "dhcp":
        others = tuple(f"!{_tag(name)}" for name in oses)
        files.append((("uefi", *others), f"{oses[0]}/shimx64.efi"))
    return files


def _server_lines(tags: tuple[str, ...], name: str) -> list[str]:
    condition = "".join(f"tag:{tag}," for tag in tags)
    lines = [f"dhcp-boot={condition}{name}"]
    if "http" in tags:
        # UEFI 2.10, 24.7.3.1: firmware takes a URL only from who answers as HTTPClient.
        lines.append("dhcp-option-force=tag:http,60,HTTPClient")
    return lines


def _proxy_lines(tags: tuple[str, ...], name: str) -> list[str]:
    kinds = {"bios": ("x86PC",), "uefi": ("X86-64_EFI", "BC_EFI")}
    condition = "".join(f"tag:{tag}," for tag in tags[1:])
    return [f"pxe-service={condition}{kind},goldimg,{name}" for kind in kinds.get(tags[0], ())]


def _tag(os_name: str) -> str:
    return f"os-{os_name}"
