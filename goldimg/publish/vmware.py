"""VMware: the OVA, copied to where it is fetched from."""

from __future__ import annotations

from goldimg.publish.shelf import ShelfPublisher


class VmwarePublisher(ShelfPublisher):
    """Publishes the OVA."""

    name = "vmware"
    artifact = "ova"


PUBLISHER = VmwarePublisher
