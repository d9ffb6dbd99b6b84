"""What lists finished images beside their own directories: a version's SHA256SUMS, the catalogs."""

from __future__ import annotations

from goldimg.artifacts import write_version_sums
from goldimg.catalog.local import base_url_of, update
from goldimg.errors import GoldimgError, Interrupted
from goldimg.shop import Shop


def list_images(shop: Shop, build: str = "") -> None:
    """Brings both up to date with what is finished.

    A list that cannot be written, such as a catalog that somebody broke, fails no image: it is
    told, and the next build or 'goldimg catalog' tries again.
    """
    site, settings = shop.site, shop.settings
    try:
        write_version_sums(site, shop.version, shop.runner.check_cancelled)
        url = base_url_of(site, settings.site.catalog.url)
        namespace = settings.site.namespace
        for local in update(site, namespace, settings.name, url, shop.runner.check_cancelled):
            for note in local.notes:
                shop.events.emit(build, "warning", f"{site.shown(local.path)}: {note}")
    except Interrupted:
        raise
    except (GoldimgError, OSError) as error:
        shop.events.emit(build, "warning", f"images are not listed: {error}")
