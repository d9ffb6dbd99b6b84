"""`serve:` of the site file: how the site's kickstart server listens, and what it gives to whom."""

from ipaddress import ip_address, ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from goldimg.config.fields import Fault, Seconds, Text, Url, Word, matching, seconds


def _address(value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        raise ValueError("must be an address such as 127.0.0.1, 0.0.0.0 or ::1") from None


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError:
        raise ValueError("must be a network such as 10.77.0.0/24") from None


def _range(value: str) -> str:
    first, _, last = value.partition("-")
    low, high = _address(first.strip()), _address(last.strip())
    if ip_address(low).version != ip_address(high).version or int(ip_address(low)) > int(
        ip_address(high)
    ):
        raise ValueError("must be a range such as 10.77.0.100-10.77.0.200")
    return f"{low}-{high}"


Address = Annotated[str, AfterValidator(_address)]
Network = Annotated[str, AfterValidator(_network)]
Range = Annotated[str, AfterValidator(_range)]
Interface = Annotated[
    str, matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", "must be a network interface's name")
]
Build = Annotated[
    str, matching(r"metal/[A-Za-z0-9][A-Za-z0-9._-]*", "must be a build such as metal/generic")
]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, hide_input_in_errors=True
    )


class Netboot(_Section):
    """What `goldimg serve --netboot` tells machines that start over the network."""

    interface: Interface | None = None  # where dnsmasq answers
    # proxy: the site's own DHCP server gives addresses; dhcp: dnsmasq does, from dhcp_range
    mode: Literal["proxy", "dhcp"] = "proxy"
    dhcp_range: Range | None = None
    router: Address | None = None
    nameservers: tuple[Address, ...] = ()
    loader: Literal["ipxe", "grub"] = "ipxe"  # grub with UEFI, pxelinux with BIOS
    secure_boot: bool = False  # UEFI machines start the distribution's shim and GRUB
    # What a machine that no host file knows gets.
    unknown: Literal["local", "menu", "install"] = "local"
    unknown_build: Build | None = None
    unknown_os: Word | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Netboot":
        if self.mode == "dhcp" and self.dhcp_range is None:
            raise Fault("dhcp_range", "is needed where mode is dhcp")
        if self.unknown == "install" and not (self.unknown_build and self.unknown_os):
            raise Fault("unknown_build", "and unknown_os are needed where unknown is install")
        return self


class Serve(_Section):
    """The site's kickstart server. Safe as it is: on loopback, nothing secret to strangers."""

    listen: Address = "127.0.0.1"
    port: int = Field(default=8080, ge=1, le=65535)
    url: Url | None = None  # how machines reach it; by default http://<listen>:<port>
    tls_certificate: Text | None = None
    tls_key: Text | None = None
    trusted_proxies: tuple[Network, ...] = ()  # whose X-Forwarded-For counts
    workers: int = Field(default=2, ge=1, le=64)
    rate: int = Field(default=1200, ge=0, le=10_000_000)  # requests a minute of one address; 0: any
    state_dir: Text = ".state"
    # Machines in these networks are known by their MAC address and get what is armed for them.
    networks: tuple[Network, ...] = ()
    # A kickstart asked for without a token: without its secrets, or not at all.
    anonymous: Literal["without-secrets", "refuse"] = "without-secrets"
    # A machine that nobody has armed: no kickstart, or one without secrets.
    unarmed: Literal["refuse", "without-secrets"] = "refuse"
    arm_expires: Seconds = seconds("24h")
    token_window: Seconds = seconds("15m")  # from the first fetch of a kickstart with secrets
    repository: Literal["mirror", "iso"] = "mirror"  # what machines install from
    syslog_port: int = Field(default=0, ge=0, le=65535)  # UDP, for inst.syslog; 0: none
    netboot: Netboot = Netboot()

    @model_validator(mode="after")
    def _fits(self) -> "Serve":
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise Fault("tls_key", "and tls_certificate are needed together")
        if (
            self.url
            and self.url.startswith("https:")
            and not (self.tls_certificate or self.trusted_proxies)
        ):
            raise Fault("url", "is https, so tls_certificate or trusted_proxies is needed")
        return self
