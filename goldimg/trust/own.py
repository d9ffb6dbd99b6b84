"""Whom a site trusts: its own key, and the former keys in keys/allowed_signers."""

from __future__ import annotations

from goldimg.config.sign import Sign
from goldimg.errors import GoldimgError
from goldimg.keys import SIGNING
from goldimg.project import Site
from goldimg.run import Runner
from goldimg.trust.signer import site_signer
from goldimg.trust.verifier import Trusted

FORMER = "allowed_signers"


def trusted_by_site(site: Site, sign: Sign, runner: Runner) -> list[Trusted]:
    """The public keys that images of this site are checked by; none where it signs nothing.

    No key is made: a site that has none yet trusts nobody.
    """
    if sign.using == "none":
        return []
    found = []
    former = site.keys / FORMER
    if former.is_file():
        found.append(Trusted.read(former))
    if sign.using == "ssh" and not sign.key:
        public = site.keys / f"{SIGNING}.pub"
        return [*found, Trusted.read(public, sign.identity)] if public.is_file() else found
    signer = site_signer(site, sign, runner)
    if signer is None:
        return found
    try:
        text = signer.public_key()
    except OSError as error:
        raise GoldimgError("the site's public key cannot be read", why=str(error)) from None
    return [*found, Trusted.of(text, "the site's key", sign.identity)]
