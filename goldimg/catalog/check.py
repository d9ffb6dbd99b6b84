"""What is wrong with a catalog: faults that Vagrant would stumble over, and boxes not listed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from goldimg.catalog.local import Local
from goldimg.catalog.merge import is_ours, providers_of
from goldimg.catalog.version import is_version
from goldimg.formats.stream import sha256_of

DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}


def faults(local: Local, found: Mapping[str, Any] | None) -> list[str]:
    """Every fault of `found`, the catalog that is in the file, against what it should be.

    Boxes on this machine are there, and those that somebody else listed have the sum they are
    listed with (`goldimg verify` hashes our own). Nothing is asked of the network.
    """
    if found is None:
        return ["there is no such file, and there are boxes to list"]
    faults = [*_of_frame(found)]
    seen: set[str] = set()
    for version in found.get("versions") or []:
        number = str(version.get("version", "")) if isinstance(version, dict) else ""
        if not number or not is_version(number):
            faults.append(
                f"version '{number}': no version for Vagrant, which refuses the whole file"
            )
        elif number in seen:
            faults.append(f"version {number} is there twice")
        seen.add(number)
        entries = providers_of(version)
        if not entries:
            faults.append(f"version {number} has no provider")
        for entry in entries:
            faults += [f"version {number}: {fault}" for fault in _of_provider(entry)]
    if local.is_changed and not faults:
        faults.append("it does not list exactly the boxes that there are")
    return faults


def _of_frame(found: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(found.get("name"), str) or not found["name"]:
        yield "it has no name"
    if not isinstance(found.get("versions"), list):
        yield "it has no list of versions"


def _of_provider(entry: Mapping[str, Any]) -> Iterator[str]:
    name, url = entry.get("name"), entry.get("url")
    if not isinstance(name, str) or not name:
        yield "a provider has no name"
    if not isinstance(url, str) or not url:
        yield f"{name}: no URL"
        return
    kind, checksum = entry.get("checksum_type"), str(entry.get("checksum", ""))
    if kind is not None and (
        kind not in DIGITS or len(checksum) != DIGITS[kind] or not _is_hex(checksum)
    ):
        yield f"{name}: checksum and checksum_type do not fit together"
    parts = urlsplit(url)
    if parts.scheme in ("http", "https"):
        return
    path = Path(unquote(parts.path))
    if parts.scheme != "file" or not path.is_absolute():
        yield f"{name}: '{url}' is not absolute: Vagrant would look in the current directory"
    elif not path.is_file():
        yield f"{name}: {path} does not exist"
    elif kind == "sha256" and not is_ours(entry) and sha256_of(path).hex() != checksum.lower():
        yield f"{name}: {path} has another checksum"


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdefABCDEF" for character in text)
