"""Channels and environments, as a user has them: with boxes in directories for a provider."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from goldimg.artifacts import MANIFEST
from goldimg.catalog.local import update
from goldimg.catalog.marks import marked
from goldimg.channels import channels_path, held, read_channels
from goldimg.config import load_settings
from goldimg.errors import ConfigError
from goldimg.publish.site import as_variables
from tests.promoting import mark_tested
from tests.publishing import GOLDIMG, OS, Shop, make_shop

VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
BY = ("virtualbox", "-O", OS)


def as_yaml(data: object) -> str:
    """YAML that keeps the order of environments."""
    return yaml.safe_dump(data, sort_keys=False)


class House:
    """A site with three versions of a box, all of them tested, and a place for each environment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        places = {name: root / "srv" / name for name in ("all", "sbx", "dev", "prod")}
        for place in places.values():
            place.mkdir(parents=True)
        self.places = places
        environments: dict[str, Any] = {
            name: {"virtualbox": {"to": str(places[name])}} for name in ("sbx", "dev", "prod")
        }
        environments["prod"]["approval"] = True
        box = {"to": str(places["all"]), "url": "https://boxes.example.com"}
        self.publish = {"virtualbox": box, "environments": environments}
        self.shops: dict[str, Shop] = {}
        for number, version in enumerate(VERSIONS):
            self.shops[version] = make_shop(
                root / "site", "virtualbox", version=version, mib=4, seed=number,
                site_yml=as_yaml({"publish": self.publish}),
            )  # fmt: skip
            mark_tested(self.shops[version])
        self.site = self.shops["1.0.0"].site
        update(self.site, "goldimg", OS, "https://boxes.example.com")

    def goldimg(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [GOLDIMG, *arguments],
            cwd=self.site.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def done(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same, where nothing may go wrong."""
        found = self.goldimg(*arguments)
        assert found.returncode == 0, found.stdout + found.stderr
        return found

    def promote(self, version: str, to: str, *more: str) -> subprocess.CompletedProcess[str]:
        return self.goldimg("promote", *BY, "--version", version, "--to", to, "--yes", *more)

    def catalog(self, place: str = "all") -> dict[str, dict[str, Any]]:
        """The versions of a published catalog."""
        found = json.loads((self.places[place] / f"{OS}.json").read_text())
        return {it["version"]: it for it in found["versions"]}

    def local(self) -> dict[str, dict[str, Any]]:
        """Those of the site's own."""
        found = json.loads((self.site.artifacts / f"{OS}.json").read_text())
        return {it["version"]: it for it in found["versions"]}

    def means(self, channel: str) -> str:
        pointer = read_channels(self.site, OS).pointer(channel, "virtualbox")
        return pointer.version if pointer else ""

    def files(self, place: str) -> list[str]:
        return sorted(it.parents[2].name for it in self.places[place].glob("*/*/*/*.box"))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_channel_moves_is_told_and_goes_back(house: House) -> None:
    for version in ("1.0.0", "1.1.0"):
        house.done("upload", *BY, "--version", version)
    assert house.promote("1.0.0", "stable").returncode == 0
    done = house.promote("1.1.0", "stable")
    assert "in place of 1.0.0" in done.stdout
    for catalog in (house.catalog(), house.local()):
        assert catalog["1.1.0"]["channels"] == ["stable"]
        assert catalog["1.1.0"]["description_markdown"] == "channels: stable"
        assert "channels" not in catalog["1.0.0"]
        assert catalog["1.0.0"]["status"] == "active"
    again = house.promote("1.1.0", "stable")
    assert "nothing to do" in again.stdout
    assert "done:" not in again.stdout
    # a build brings the catalog up to date; what channels say of it stays
    house.done("catalog")
    assert house.local()["1.1.0"]["channels"] == ["stable"]
    assert house.promote("1.0.0", "stable").returncode == 0
    for catalog in (house.catalog(), house.local()):
        assert (catalog["1.1.0"]["status"], catalog["1.0.0"]["status"]) == ("revoked", "active")
        assert next(iter(catalog)) != "1.1.0"  # what is off comes last
    history = house.done("channels", "--history").stdout.splitlines()
    assert [line.split()[4] for line in history[1:]] == ["1.0.0", "1.1.0", "1.0.0"]
    house.done("sign")
    assert house.done("verify", ".").stdout.count(f"channels/{OS}.json: OK") == 1
    assert "channels" not in house.done("verify", "artifacts/1.0.0").stdout
    (shown,) = json.loads(house.done("channels", "--json").stdout)
    assert shown["channels"]["stable"]["virtualbox"]["version"] == "1.0.0"
    listed = {
        it["version"]: it["channels"] for it in json.loads(house.done("list", "--json").stdout)
    }
    assert (listed["1.0.0"], listed["1.1.0"]) == (["stable"], [])


def test_what_is_not_tested_goes_nowhere(house: House) -> None:
    mark_tested(house.shops["1.1.0"], is_ok=False)
    done = house.promote("1.1.0", "stable")
    assert done.returncode == 2
    assert f"artifacts/1.1.0/{OS}/virtualbox failed its test" in done.stderr
    assert f"goldimg test virtualbox -O {OS} --version 1.1.0" in done.stderr
    manifest = house.shops["1.2.0"].directory / MANIFEST
    known = json.loads(manifest.read_text())
    known["artifacts"][0]["sha256"] = "0" * 64  # another file than the one that was booted
    manifest.write_text(json.dumps(known))
    done = house.promote("1.2.0", "stable")
    assert done.returncode == 2
    assert "virtualbox was not tested" in done.stderr
    assert house.means("stable") == ""
    assert not channels_path(house.site, OS).exists()


def test_names_that_the_site_does_not_have_are_told(house: House) -> None:
    done = house.promote("1.0.0", "stabel")
    assert done.returncode == 2
    assert "did you mean 'stable'?" in done.stderr
    done = house.goldimg("upload", *BY, "--env", "pord")
    assert done.returncode == 2
    assert "unknown environment 'pord' (did you mean 'prod'?)" in done.stderr
    done = house.promote("7.0.0", "stable")
    assert done.returncode == 2
    assert "7.0.0 is not built for virtualbox" in done.stderr


def test_nobody_is_asked_where_nobody_is_there(house: House) -> None:
    arguments = ("promote", *BY, "--version", "1.0.0", "--to", "stable")
    done = house.goldimg(*arguments)
    assert done.returncode == 2
    assert "say --yes" in done.stderr
    assert house.means("stable") == ""
    done = house.goldimg(*arguments, "--dry-run")
    assert done.returncode == 0
    assert "stable is to be Debian-12 1.0.0" in done.stdout
    assert house.means("stable") == ""
    assert answered(house, "n", *arguments) == 130
    assert house.means("stable") == ""
    assert answered(house, "y", *arguments) == 0
    assert house.means("stable") == "1.0.0"


def answered(house: House, answer: str, *arguments: str) -> int:
    """The exit code of a command at a terminal, where somebody answers it."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [GOLDIMG, *arguments], cwd=house.site.root, stdin=theirs, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        os.close(theirs)
        os.write(ours, f"{answer}\n".encode())
        code = process.wait(timeout=60)
    os.close(ours)
    return code


def test_what_a_channel_points_to_is_neither_pruned_nor_unpublished(house: House) -> None:
    assert house.promote("1.0.0", "stable").returncode == 0  # not published: known here only
    done = house.done("prune", "--keep", "1", "--yes")
    assert "1.0.0/Debian-12/virtualbox stays: stable points to it" in done.stderr
    assert not house.shops["1.1.0"].directory.exists()
    house.done("upload", *BY, "--version", "1.0.0")
    take_back = ("unpublish", *BY, "--version", "1.0.0", "--yes")
    done = house.goldimg(*take_back)
    assert done.returncode == 2
    assert "stable points to Debian-12 1.0.0 of virtualbox" in done.stderr
    assert house.files("all") == ["1.0.0"]
    house.done(*take_back, "--force")
    assert house.files("all") == []
    house.done("upload", *BY, "--version", "1.2.0")
    assert "1.0.0 stays as it is: it is not published" in house.promote("1.2.0", "stable").stdout
    assert house.means("stable") == "1.2.0"


def test_channels_that_were_edited_are_not_believed(house: House) -> None:
    assert house.promote("1.0.0", "stable").returncode == 0
    house.done("sign")
    assert house.done("verify", "artifacts").stdout
    path = channels_path(house.site, OS)
    good = path.read_text()
    path.write_text(good.replace("1.0.0", "1.1.0"))
    assert house.goldimg("verify", "artifacts").returncode == 5
    done = house.promote("1.2.0", "stable")
    assert done.returncode == 5
    assert house.means("stable") == "1.1.0"
    path.write_text("{}")
    done = house.goldimg("prune", "--keep", "1", "--yes")
    assert "the channels cannot be read" in done.stderr
    assert all(shop.directory.exists() for shop in house.shops.values())
    path.write_text(good)
    assert house.promote("1.2.0", "stable").returncode == 0


def test_one_promotes_at_a_time(house: House) -> None:
    with held(house.site, OS):
        done = house.promote("1.0.0", "stable")
    assert done.returncode == 1
    assert "is already being promoted" in done.stderr


# --- environments -------------------------------------------------------------------------------


def test_a_version_goes_from_one_environment_to_the_next(house: House) -> None:
    done = house.promote("1.0.0", "prod")
    assert done.returncode == 2
    assert "dev comes before" in done.stderr
    done = house.goldimg("upload", *BY, "--version", "1.0.0", "--env", "dev")
    assert done.returncode == 2
    assert "sbx comes before" in done.stderr
    house.done("upload", *BY, "--version", "1.0.0", "--env", "sbx")
    house.done("promote", "-O", OS, "--version", "1.0.0", "--to", "dev")  # without approval
    assert (house.files("dev"), house.files("prod")) == (["1.0.0"], [])
    to_prod = ("promote", "-O", OS, "--version", "1.0.0", "--to", "prod")
    done = house.goldimg(*to_prod)
    assert done.returncode == 2
    assert "nobody is here to confirm" in done.stderr
    assert house.files("prod") == []
    done = house.goldimg("upload", *BY, "--version", "1.0.0", "--env", "prod")
    assert done.returncode == 2  # no way around the approval
    house.done(*to_prod, "--dry-run")
    assert house.files("prod") == []
    assert answered(house, "y", *to_prod) == 0
    assert house.files("prod") == ["1.0.0"]
    assert (house.means("dev"), house.means("prod")) == ("1.0.0", "1.0.0")
    assert house.catalog("prod")["1.0.0"]["channels"] == ["prod"]
    assert "nothing to do" in house.done(*to_prod, "--yes").stdout
    shown = house.done("published", "-O", OS).stdout
    assert [line.split()[-1] for line in shown.splitlines()[1:]] == ["sbx", "dev", "prod"]
    # published there again by another way, it stays the environment's
    house.done("upload", *BY, "--version", "1.0.0",
               "--var", f"publish.virtualbox.to={house.places['dev']}")  # fmt: skip
    assert "dev" in house.done("published", "-O", OS).stdout
    done = house.goldimg("unpublish", *BY, "--version", "1.0.0", "--yes")
    assert "it is with --env dev, prod, sbx" in done.stderr
    house.done("unpublish", *BY, "--version", "1.0.0", "--env", "sbx", "--yes")
    assert (house.files("sbx"), house.files("dev")) == ([], ["1.0.0"])


def test_only_the_first_environment_takes_what_is_not_tested(house: House) -> None:
    mark_tested(house.shops["1.0.0"], is_ok=False)
    house.done("upload", *BY, "--version", "1.0.0", "--env", "sbx")
    done = house.goldimg("upload", *BY, "--version", "1.0.0", "--env", "dev")
    assert done.returncode == 2
    assert "failed its test" in done.stderr


def test_another_build_of_a_version_is_not_the_one_that_was_there(house: House) -> None:
    house.done("upload", *BY, "--version", "1.0.0", "--env", "sbx")
    shop = house.shops["1.0.0"]
    known = json.loads((shop.directory / MANIFEST).read_text())
    make_shop(house.root / "site", "virtualbox", version="1.0.0", mib=4, seed=9)
    mark_tested(shop)
    assert shop.publications == known["publications"]
    done = house.promote("1.0.0", "dev")
    assert done.returncode == 2
    assert "sbx comes before, and does not have this build" in done.stderr


def test_environments_inherit_and_are_checked_where_they_stand(house: House) -> None:
    settings = load_settings(house.site, OS, environ={})
    prod = settings.site.publish.environments["prod"]
    assert prod.virtualbox.url == "https://boxes.example.com"
    assert prod.virtualbox.to == str(house.places["prod"])
    assert prod.approval
    assert list(settings.site.publish.environments) == ["sbx", "dev", "prod"]
    house.publish["environments"]["dev"]["azure"] = {"group": "a" * 99, "grup": "x"}
    house.publish["environments"]["stable"] = {}
    (house.site.templates / "site.yml").write_text(as_yaml({"publish": house.publish}))
    with pytest.raises(ConfigError) as told:
        load_settings(house.site, OS, environ={})
    keys = {it.key: it for it in told.value.problems}
    assert "publish.environments.dev.azure.group" in keys
    assert keys["publish.environments.dev.azure.grup"].suggestion == "group"
    assert all(it.line for it in told.value.problems)


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("channels", ["latest"], "not be 'latest'"),
        ("environments", {"stable": {}}, "is the name of a channel"),
        ("environments", {"Prod": {}}, "small letters"),
    ],
)
def test_names_have_rules(house: House, key: str, value: object, fault: str) -> None:
    text = yaml.safe_dump({"publish": {key: value}})
    (house.site.templates / "site.yml").write_text(text)
    with pytest.raises(ConfigError, match=fault):
        load_settings(house.site, OS, environ={})


def test_flags_are_for_the_environment_that_is_named(house: House) -> None:
    (variable,) = as_variables(["aws"], {"regions": "eu-west-1,us-east-1"}, "prod")
    publish = load_settings(house.site, OS, variables=[variable], environ={}).site.publish
    assert publish.environments["prod"].aws.regions == ("eu-west-1", "us-east-1")
    assert (publish.environments["dev"].aws.regions, publish.aws.regions) == ((), ())


def test_two_environments_do_not_share_a_place(house: House) -> None:
    del house.publish["environments"]["dev"]["virtualbox"]["to"]
    house.publish["virtualbox"]["to"] = str(house.places["sbx"])  # which both have then
    (house.site.templates / "site.yml").write_text(as_yaml({"publish": house.publish}))
    done = house.goldimg("upload", *BY, "--version", "1.0.0", "--env", "sbx")
    assert done.returncode == 2
    assert "sbx and dev publish virtualbox to the same place" in done.stderr


# --- prune --remote -----------------------------------------------------------------------------


def test_old_publications_are_listed_and_go_but_for_those_of_channels(house: House) -> None:
    for version in VERSIONS:
        house.done("upload", *BY, "--version", version)
    house.done("upload", *BY, "--version", "1.1.0", "--env", "sbx")
    assert house.promote("1.0.0", "stable").returncode == 0
    done = house.done("prune", "--remote", "--keep", "1")
    assert "1.1.0_virtualbox at virtualbox" in done.stdout
    assert "1.0.0" not in done.stdout
    assert "stays: stable points to 1.0.0" in done.stderr
    assert "no publication was removed (1 would be): say --yes" in done.stderr
    assert house.files("all") == list(VERSIONS)
    listed = json.loads(house.done("prune", "--remote", "--keep", "1", "--json").stdout)
    assert [(it["kind"], it["version"]) for it in listed] == [("publication", "1.1.0")]
    house.done("prune", "--remote", "--keep", "1", "--yes")
    assert house.files("all") == ["1.0.0", "1.2.0"]
    assert house.files("sbx") == ["1.1.0"]  # the newest there
    assert list(house.catalog()) == ["1.2.0", "1.0.0"]
    assert house.shops["1.1.0"].directory.exists()  # sbx has it
    done = house.done("prune", "--remote", "--keep", "1", "--yes")
    assert "no publication is old enough" in done.stderr
    house.publish["virtualbox"]["to"] = str(house.root / "elsewhere")
    (house.site.templates / "site.yml").write_text(as_yaml({"publish": house.publish}))
    house.done("upload", *BY, "--version", "1.2.0", "--var", "publish.virtualbox.create=true")
    assert house.promote("1.2.0", "stable").returncode == 0
    done = house.done("prune", "--remote", "--keep", "1", "--yes")
    assert "1.0.0_virtualbox" in done.stderr
    assert "the settings are now for" in done.stderr
    assert house.files("all") == ["1.0.0", "1.2.0"]


# --- catalogs -----------------------------------------------------------------------------------


def test_a_description_that_somebody_wrote_stays() -> None:
    entry = {"version": "1.0.0", "providers": [], "description_markdown": "do not use"}
    catalog = {"name": "a/b", "versions": [entry]}
    found = marked(catalog, {"1.0.0": ("beta", "stable")}, set())
    assert found["versions"][0]["description_markdown"] == "do not use"
    assert found["versions"][0]["channels"] == ["beta", "stable"]
    assert marked(found, {"1.0.0": ()}, set()) == {
        "name": "a/b", "versions": [{**entry, "status": "active"}]
    }  # fmt: skip
    assert catalog["versions"] == [entry]
