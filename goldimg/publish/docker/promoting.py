"""What channels are in engines and registries: a tag of the channel's name, which moves.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-manifests
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from goldimg.errors import PublishFailed
from goldimg.publish.docker.engine import Engine
from goldimg.publish.docker.loading import NAME
from goldimg.publish.docker.registry import Registry
from goldimg.publish.job import Session
from goldimg.publish.journal import Resource
from goldimg.publish.promotion import Change, Promoting, Promotion


def promoting(
    session: Session, engine: Engine | None, registry: Callable[[str], Registry] | None,
    it: Promotion,
) -> Promoting:  # fmt: skip
    """The tag in the engine, the registry or both; who lost it keeps its version's tag."""
    repository = it.to.publication.name.rpartition(":")[0]
    changes, resources = [], []
    if engine is not None:
        id_ = str(it.to.publication.hashes.get("config", ""))
        name = f"{repository}:{it.channel}"
        if session.call(lambda: engine.inspect(id_), what="inspect") is None:
            raise _gone(it, "the engine")
        named = session.call(lambda: engine.inspect(name), what="inspect")
        if named is None or named["Id"] != id_:
            tag = partial(engine.tag, id_, repository, it.channel)
            make = partial(session.call, tag, what="tag")
            changes.append(Change(what=f"{name} in the engine is {id_[:19]}", make=make))
        resources.append(Resource(kind=NAME, id=f"{name}@{id_}"))
    if registry is not None:
        changes += _in_registry(session, registry(repository), it)
    return Promoting(changes=tuple(changes), resources=tuple(resources))


def _in_registry(session: Session, registry: Registry, it: Promotion) -> list[Change]:
    """Its tag needs no removal: it goes with the manifest."""
    digest = str(it.to.publication.hashes.get("manifest", ""))
    wanted = session.call(lambda: registry.manifest(digest), what="manifest") if digest else None
    if wanted is None:
        raise _gone(it, f"registry {registry.host}")
    if session.call(lambda: registry.manifest(it.channel), what="manifest") == wanted:
        return []
    put = partial(registry.put_manifest, it.channel, wanted)
    words = f"{registry.host}/{registry.repository}:{it.channel} is {digest[:19]}"
    return [Change(what=words, make=partial(session.call, put, what="manifest"))]


def _gone(it: Promotion, where: str) -> PublishFailed:
    return PublishFailed(
        f"docker: {it.to.publication.name} is not in {where} any more",
        hint=f"publish it again: goldimg upload docker -O {it.os_name} --version {it.to.version}",
    )
