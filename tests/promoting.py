"""Promotions in this process, and images that count as tested."""

from __future__ import annotations

import json
from typing import Any

from goldimg.artifacts import MANIFEST
from goldimg.channels import held, read_channels
from goldimg.publish.promote import Aim, Step, carry_out, step_for
from goldimg.publish.publisher import Publisher
from goldimg.tested import TESTS
from tests.publishing import OS, Shop


def mark_tested(shop: Shop, *, is_ok: bool = True) -> None:
    """Writes what `goldimg test` leaves in the manifest."""
    artifacts = {it["file"]: it["sha256"] for it in shop.manifest["artifacts"]}
    whole = {**shop.manifest, TESTS: {"ok": is_ok, "artifacts": artifacts}}
    (shop.directory / MANIFEST).write_text(json.dumps(whole))


def aim_at(version: str, channel: str = "stable") -> Aim:
    return Aim(
        os_name=OS,
        version=version,
        channel=channel,
        environment="",
        environments=frozenset({"dev", "prod"}),
    )


def left_to_do(shop: Shop, publisher: Publisher[Any], channel: str = "stable") -> Step:
    """What a promotion of the shop's version would change."""
    publisher.session.is_transient = publisher.is_transient
    channels = read_channels(shop.site, OS)
    return step_for(shop.site, aim_at(shop.version, channel), channels, publisher)


def promote(shop: Shop, publisher: Publisher[Any], channel: str = "stable") -> list[str]:
    """Promotes the shop's version; what was done, in words."""
    done: list[str] = []
    step = left_to_do(shop, publisher, channel)
    with held(shop.site, OS):
        carry_out(
            shop.site,
            aim_at(shop.version, channel),
            read_channels(shop.site, OS),
            step,
            None,
            lambda _, words: done.append(words),
        )
    return done


def means(shop: Shop, channel: str = "stable") -> str:
    """The version that a channel points to."""
    pointer = read_channels(shop.site, OS).pointer(channel, shop.provider)
    return pointer.version if pointer else ""
