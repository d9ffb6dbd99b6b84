"""Azure: a VHD as page blob or managed disk, and an image or a gallery's image version of it.

https://learn.microsoft.com/azure/virtual-machines/linux/create-upload-generic
https://learn.microsoft.com/azure/virtual-machines/shared-image-galleries
"""

from __future__ import annotations

from goldimg.publish.azure.publisher import AzurePublisher

PUBLISHER = AzurePublisher

__all__ = ["PUBLISHER", "AzurePublisher"]
