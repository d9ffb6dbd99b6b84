"""`catalog:` of the site file: where Vagrant finds the boxes."""

from goldimg.config.fields import Url
from goldimg.config.written import Written


class Catalog(Written):
    """Vagrant's catalogs. `url` is that of artifacts/; without it they hold file:// URLs."""

    url: Url | None = None
