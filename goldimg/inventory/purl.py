"""Package URLs of a distribution's packages.

https://github.com/package-url/purl-spec/blob/main/PURL-SPECIFICATION.rst, types deb and rpm
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from goldimg.inventory import Package

NAMESPACES = {"rhel": "redhat"}  # where os-release(5) has another word for the vendor
DEFAULTS = {"deb": "debian", "rpm": "redhat"}


def purl(package: Package, manager: str, os: Mapping[str, str]) -> str:
    """`pkg:deb/debian/bash@5.2.15-2?arch=amd64&distro=debian-12`, and the like of RPM."""
    kind = "rpm" if manager == "rpm" else "deb"
    vendor = os.get("ID") or DEFAULTS[kind]
    namespace = NAMESPACES.get(vendor, vendor)
    version, qualifiers = package.version, {"arch": package.arch}
    if kind == "rpm" and ":" in version:
        qualifiers["epoch"], version = version.split(":", 1)
    if os.get("VERSION_ID"):
        qualifiers["distro"] = f"{vendor}-{os['VERSION_ID']}"
    # a name of RPM keeps its case, one of Debian has none
    asked = "&".join(f"{key}={_quoted(it)}" for key, it in sorted(qualifiers.items()) if it)
    return f"pkg:{kind}/{_quoted(namespace)}/{_quoted(package.name)}@{_quoted(version)}?{asked}"


def _quoted(text: str) -> str:
    return quote(text, safe=":")
