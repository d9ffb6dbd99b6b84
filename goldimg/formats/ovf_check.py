"""Reads an OVF envelope back: what a disk's file must be for a reader to find it.

Source: DMTF DSP0243 (OVF 1.1), sections 7.1 "File References" and 9.1 "DiskSection".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

from goldimg.errors import VerificationFailed
from goldimg.formats.ovf import DISK, NS, RASD, STREAM_OPTIMIZED, DiskFile


def parse(text: str, fail: Callable[[str], VerificationFailed]) -> DiskFile:
    """The disk that an envelope names; the error made by `fail` where a rule is broken.

    Checked: well-formed and without a document type, one disk with one file, and exactly one item
    that holds it, on a controller that is there.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise fail("a document type, which an envelope has no use for")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - no document type, so no entities
    except ElementTree.ParseError as error:
        raise fail(f"not well-formed: {error}") from error
    files = root.findall(f"{{{NS}}}References/{{{NS}}}File")
    disks = root.findall(f"{{{NS}}}DiskSection/{{{NS}}}Disk")
    items = list(root.iter(f"{{{NS}}}Item"))
    by_id = {_child(item, "InstanceID"): item for item in items}
    drives = [item for item in items if _child(item, "ResourceType") == str(DISK)]
    if root.tag != f"{{{NS}}}Envelope" or len(files) != 1 or len(disks) != 1 or len(drives) != 1:
        raise fail("not an envelope with one file, one disk and one drive")
    file, disk = files[0].attrib, disks[0].attrib
    # DMTF DSP0004, "Programmatic Units", as far as OVF uses them
    unit = disk.get(f"{{{NS}}}capacityAllocationUnits", "byte")
    factor = re.fullmatch(r"byte(?: \* 2\^([0-9]{1,2}))?", unit)
    wanted = (
        disk.get(f"{{{NS}}}fileRef") == file.get(f"{{{NS}}}id"),
        disk.get(f"{{{NS}}}format") == STREAM_OPTIMIZED,
        factor is not None,
        _child(drives[0], "HostResource") == f"ovf:/disk/{disk.get(f'{{{NS}}}diskId')}",
        len(by_id) == len(items),
        _child(drives[0], "Parent") in by_id,
    )
    if not all(wanted):
        raise fail("file, disk, drive and controller do not refer to each other")
    try:
        return DiskFile(
            name=file[f"{{{NS}}}href"],
            size=int(file[f"{{{NS}}}size"]),
            capacity=int(disk[f"{{{NS}}}capacity"]) << int(factor[1] or 0 if factor else 0),
        )
    except (KeyError, ValueError) as error:
        raise fail(f"a size or a name is missing: {error}") from error


def _child(item: ElementTree.Element, name: str) -> str:
    return item.findtext(f"{{{RASD}}}{name}", "")
