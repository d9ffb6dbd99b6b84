"""What a build decides before it starts a VM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from goldimg.config import load_settings
from goldimg.errors import GoldimgError
from goldimg.host import inspect_host
from goldimg.inputs import Recipe, base_key, layer_key, make_recipe, playbook_digest
from goldimg.keys import ensure_keys
from goldimg.kickstart.progress import InstallListener, KickstartNeverFetched
from goldimg.layout import lay_out
from goldimg.packer.driver import Story
from goldimg.project import Site, write_text
from goldimg.providers import select_providers
from goldimg.run import Runner
from goldimg.session import lock_path
from goldimg.space import Estimate, check_space, estimate
from tests.support import needs


@pytest.fixture
def site(tmp_path: Path) -> Site:
    lay_out(tmp_path)
    return Site(root=tmp_path)


def recipe_of(site: Site) -> Recipe:
    needs("ksvalidator", "ssh-keygen")
    keys = ensure_keys(site.keys, Runner())
    return make_recipe(
        site,
        load_settings(site, "CentOS-7.2.1511", environ={}),
        select_providers([], ["azure", "gcp"], []),
        version="1.0.0",
        jobs=1,
        host=inspect_host(),
        public_key=keys[0].public_text,
        runner=Runner(),
    )


def test_a_build_that_cannot_fit_says_by_how_much(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("goldimg.space.free_bytes", lambda _: 3000 << 20)
    recipe = recipe_of(site)
    check_space(site, recipe.plan, [])  # nothing to do fits everywhere
    with pytest.raises(GoldimgError) as caught:
        check_space(site, recipe.plan, ["azure", "gcp"])
    assert "the build takes about 8000 MiB, 3000 MiB are free" in str(caught.value)
    assert "--only" in caught.value.hint


def test_earlier_builds_tell_how_much_and_how_long(site: Site) -> None:
    recipe = recipe_of(site)
    assert estimate(site, recipe.plan, ["azure", "gcp"]) == Estimate(mib=8000, seconds=None)
    for name, version, layer in (("azure", "0.9.0", 100.0), ("gcp", "0.9.0", 40.0)):
        told = {
            "seconds": {"base": {"boot": 60.0}, "layer": {"ssh": layer}},
            "space_mib": {"base": 700, "layer": 1000},
        }
        write_text(
            site.artifact_dir(version, "CentOS-7.2.1511", name) / "manifest.json",
            json.dumps(told),
        )
    # two installs of 60 s and layers of 100 and 40 s, one at a time
    assert recipe.plan.jobs == 1
    assert estimate(site, recipe.plan, ["azure", "gcp"]) == Estimate(mib=3400, seconds=260)
    assert estimate(site, recipe.plan, ["gcp"]) == Estimate(mib=1700, seconds=100)


def test_keys_follow_what_shapes_a_disk_and_nothing_else(site: Site) -> None:
    recipe = recipe_of(site)
    azure, gcp = sorted(recipe.plan.installs, key=lambda install: install.name)
    settings = load_settings(site, "CentOS-7.2.1511", environ={})

    def base() -> str:
        return base_key(azure, "iso", {"disk_mib": 8192}, settings, site)

    def layer(name: str, version: str = "1.0.0", environ: dict[str, str] | None = None) -> str:
        chosen = load_settings(site, "CentOS-7.2.1511", environ=environ or {})
        return layer_key(base(), name, version, chosen, site)

    before = (base(), layer("azure"), layer("gcp"))
    assert before[1] != before[2]
    assert base_key(gcp, "iso", {"disk_mib": 8192}, settings, site) != before[0]
    assert base_key(azure, "other iso", {"disk_mib": 8192}, settings, site) != before[0]
    assert layer("azure", "1.0.1") != before[1]
    with_password = layer("azure", environ={"GOLDIMG_ROOT_PASS": "something long"})
    assert with_password != before[1]
    assert with_password == layer("azure", environ={"GOLDIMG_ROOT_PASS": "something long"})
    playbook = site.ansible / "azure.yml"
    playbook.write_text(playbook.read_text() + "\n# changed\n")
    assert (base(), layer("gcp")) == (before[0], before[2])
    assert layer("azure") != before[1]
    assert settings.name == "CentOS-7.2.1511"


def test_a_shared_task_is_part_of_every_stage(site: Site) -> None:
    before = playbook_digest(site, "base"), playbook_digest(site, "gcp")
    task = next((site.ansible / "tasks").glob("*.yml"))
    task.write_text(task.read_text() + "\n# changed\n")
    assert playbook_digest(site, "base") != before[0]
    assert playbook_digest(site, "gcp") != before[1]


def test_locks_are_apart_for_each_image_and_litter_no_artifacts(site: Site) -> None:
    one = lock_path(site, site.artifact_dir("1.0.0", "Debian-12", "aws"))
    two = lock_path(site, site.artifact_dir("1.0.0", "Debian-12", "gcp"))
    assert one != two
    assert site.artifacts not in one.parents


def listener() -> tuple[InstallListener, list[str]]:
    phases: list[str] = []
    story = Story(on_phase=phases.append, on_detail=lambda _: None, is_install=True)
    return InstallListener("azure", story, Path("build.log")), phases


def test_an_installer_reports_become_phases() -> None:
    hearing, phases = listener()
    hearing.hear("fetched", {"address": "127.0.0.1"})
    for stage in ("started", "partitioning", "packages", "bootloader", "post", "done"):
        hearing.hear("stage", {"stage": stage})
    assert phases == ["kickstart fetched", "installing", "rebooting"]
    assert hearing.fetched == 1
    assert hearing.abort() is None


def test_a_failed_install_ends_the_build_with_its_reason() -> None:
    hearing, _ = listener()
    hearing.hear("failed", {"message": "line 12: unsupported command 'raid'\n\nlast line"})
    error = hearing.abort()
    assert error is not None
    assert str(error) == "azure: the installer stopped; line 12: unsupported command 'raid'"
    assert error.details == ("last line",)


def test_an_install_that_never_fetches_its_kickstart_is_not_waited_for() -> None:
    now = 0.0
    story = Story(on_phase=lambda _: None, on_detail=lambda _: None, is_install=True)
    log = Path("build.log")
    silent = InstallListener("azure", story, log, patience=240, clock=lambda: now)
    heard = InstallListener("gcp", story, log, patience=240, clock=lambda: now)
    heard.hear("fetched", {})
    assert silent.abort() is None
    now = 241.0
    assert heard.abort() is None
    error = silent.abort()
    assert isinstance(error, KickstartNeverFetched)
    assert str(error).startswith("azure: the kickstart was never fetched")
