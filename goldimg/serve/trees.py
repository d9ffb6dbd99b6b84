"""The files of the ISOs that machines may load, by operating system."""

from __future__ import annotations

import time
from collections.abc import Callable

from goldimg.netboot.tree import Tree
from goldimg.serve.service import Service


class Trees:
    """The trees of the OSes that machines may load, looked up once a second at most."""

    def __init__(self, service: Service, clock: Callable[[], float] = time.monotonic) -> None:
        self._service, self._clock = service, clock
        self._until = -1.0
        self._trees: dict[str, Tree] = {}

    def find(self, os_name: str) -> Tree | None:
        """The tree of an OS; None for one that nobody has an ISO of. GoldimgError: it is broken."""
        now = self._clock()
        if now >= self._until:
            isos = self._service.store.isos()
            oses = self._service.catalogue.view().oses
            self._trees = {
                name: tree
                for name, tree in self._trees.items()
                if name in isos and name in oses and isos[name] == tree.iso and _is_same(tree)
            }
            self._until = now + 1.0
        if os_name not in self._trees:
            iso = self._service.store.isos().get(os_name)
            if iso is None or os_name not in self._service.catalogue.view().oses:
                return None
            cache = self._service.site.cache / "trees"
            self._trees[os_name] = Tree.of(iso, cache, self._service.runner)
        return self._trees.get(os_name)


def _is_same(tree: Tree) -> bool:
    try:
        now = tree.iso.stat()
    except OSError:
        return False
    return (now.st_size, now.st_mtime_ns) == (tree.size, tree.mtime_ns)
