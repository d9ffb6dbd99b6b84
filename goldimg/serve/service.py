"""What serving needs, opened from a site directory by the server and by `goldimg host`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from goldimg.config.serve import Serve
from goldimg.project import Site, make_directory
from goldimg.run import Runner
from goldimg.serve.catalogue import Catalogue
from goldimg.serve.desk import Desk
from goldimg.serve.store import Store
from goldimg.serve.tokens import admin_token, site_secret

# How `goldimg serve` hands its command line's settings to the server's processes: lines key=value.
VARIABLES = "GOLDIMG_SERVE_VARIABLES"
REQUEST_LOG = "GOLDIMG_REQUEST_LOG"  # set: a line for each request


@dataclass(frozen=True, kw_only=True)
class Service:
    """One site, ready to answer. `admin` opens its pages."""

    site: Site
    serve: Serve
    catalogue: Catalogue
    store: Store
    desk: Desk
    runner: Runner
    state_dir: Path
    admin: str = field(repr=False)


def open_service(
    site: Site,
    environ: Mapping[str, str],
    runner: Runner,
    *,
    variables: Sequence[str] = (),
) -> Service:
    """Opens the site's state, making what is not there yet. `variables` override its settings.

    Raises ConfigError where the site file is wrong, GoldimgError where the state cannot be used.
    """
    chosen = (*environ.get(VARIABLES, "").splitlines(), *variables)
    catalogue = Catalogue(site, environ, runner, variables=chosen)
    serve = catalogue.view().site_file.serve
    state_dir = site.root / Path(serve.state_dir).expanduser()
    if not state_dir.exists():
        make_directory(state_dir).chmod(0o700)
    store = Store(state_dir / "goldimg.sqlite")
    desk = Desk(catalogue, store, site_secret(state_dir), url=public_url(serve))
    return Service(
        site=site,
        serve=serve,
        catalogue=catalogue,
        store=store,
        desk=desk,
        runner=runner,
        state_dir=state_dir,
        admin=admin_token(state_dir),
    )


def tls_files(site: Site, serve: Serve) -> tuple[Path | None, Path | None]:
    """The certificate and the key, where the site has them; a relative path is the site's."""
    written = (serve.tls_certificate, serve.tls_key)
    found = [site.root / Path(it).expanduser() if it else None for it in written]
    return found[0], found[1]


def public_url(serve: Serve) -> str:
    """How machines reach the server: `serve.url`, else what it listens on. Never from a header."""
    if serve.url:
        return serve.url
    host = f"[{serve.listen}]" if ":" in serve.listen else serve.listen
    return f"{'https' if serve.tls_certificate else 'http'}://{host}:{serve.port}"
