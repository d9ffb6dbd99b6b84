"""What galleries are asked for, in the words of the REST reference.

https://learn.microsoft.com/rest/api/compute/gallery-images/create-or-update,
https://learn.microsoft.com/rest/api/compute/gallery-image-versions/create-or-update
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

from goldimg.config.publish.azure import AzureGallery
from goldimg.publish.azure.names import Names, Region


def definition_body(wants: AzureGallery, names: Names, region: str) -> dict[str, Any]:
    """An image definition, without tags."""
    features = {
        "SecurityType": "" if wants.security == "Standard" else wants.security,
        "IsAcceleratedNetworkSupported": str(wants.accelerated_networking),
        "DiskControllerTypes": "SCSI, NVMe" if wants.nvme else "",
        "IsHibernateSupported": "True" if wants.hibernation else "",
    }
    texts = {
        "description": wants.description,
        "eula": wants.eula,
        "privacyStatementUri": wants.privacy_url or "",
        "releaseNoteUri": wants.release_notes_url or "",
    }
    return {
        "location": region,
        "properties": {
            "osType": "Linux",
            "osState": "Generalized",
            "hyperVGeneration": names.generation,
            "architecture": "x64",
            "identifier": {
                "publisher": names.publisher,
                "offer": names.offer,
                "sku": names.sku,
            },
            "features": [
                {"name": name, "value": value} for name, value in features.items() if value
            ],
            **{key: text for key, text in texts.items() if text},
        },
    }


def profile_body(wants: AzureGallery, regions: list[Region]) -> dict[str, Any]:
    """Where a version is replicated to, and until when it is meant to be used."""
    profile: dict[str, Any] = {
        "targetRegions": [
            {
                "name": it.name,
                "regionalReplicaCount": it.replicas,
                "storageAccountType": it.storage,
            }
            for it in regions
        ],
        "replicaCount": wants.replicas,
        "storageAccountType": wants.storage,
        "replicationMode": wants.replication,
        "excludeFromLatest": wants.exclude_from_latest,
    }
    end = wants.end_of_life
    if wants.end_of_life_after:
        end = (datetime.now(UTC) + timedelta(days=wants.end_of_life_after)).date()
    if end:
        profile["endOfLifeDate"] = datetime.combine(end, time(tzinfo=UTC)).isoformat()
    return profile
