"""What channels are in a published Vagrant catalog: status and description of versions."""

from __future__ import annotations

from goldimg.catalog.marks import marked
from goldimg.catalog.merge import Entry
from goldimg.catalog.version import compare
from goldimg.publish.promotion import Promotion

NOTE = "Vagrant takes the highest version whatever its status: config.vm.box_version names another"


def with_channels(catalog: Entry, it: Promotion) -> Entry:
    """The catalog as it is after the promotion; a former version that is higher is revoked."""
    channels = {side.version: side.channels for side in (*it.former, it.to)}
    higher = {side.version for side in it.former if compare(side.version, it.to.version) > 0}
    return marked(catalog, channels, higher)
