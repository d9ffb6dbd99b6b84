"""What the documents promise is there."""

from __future__ import annotations

import re

import pytest

from goldimg.cli import cli
from goldimg.config.models import OsFile, SiteFile
from goldimg.config.serve import Netboot, Serve
from goldimg.kickstart.model import Options
from goldimg.layout import data_root

ROOT = data_root()


@pytest.mark.parametrize("model", [SiteFile, OsFile])
def test_every_key_is_documented(model: type[SiteFile] | type[OsFile]) -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    documented = set(re.findall(r"`(\w+)`", text)) | set(re.findall(r"`([\w ]+)`", text))
    words = {word for entry in documented for word in entry.split()}
    assert set(model.model_fields) - words == set()


def test_every_default_in_the_reference_is_the_real_one() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    for key in ("namespace", "version", "disk_size", "jobs", "ks_port", "accelerator"):
        shown = re.search(rf"^\| `{key}` \| (\S+) \|", text, re.MULTILINE)
        assert shown, key
        assert shown[1] == str(SiteFile.model_fields[key].default)


def test_every_key_of_the_server_is_documented() -> None:
    server = (ROOT / "docs/kickstart-server.md").read_text()
    pxe = (ROOT / "docs/pxe.md").read_text()
    for model, text in ((Serve, server), (Netboot, pxe)):
        for key in model.model_fields:
            assert re.search(rf"^\| .*`{key}`", text, re.MULTILINE), key
    for key in ("listen", "anonymous", "unarmed", "repository", "workers", "rate", "state_dir"):
        default = str(Serve.model_fields[key].default)
        assert re.search(rf"^\| .*`{key}`.* \| .*{re.escape(default)}", server, re.MULTILINE), key


def test_every_command_of_a_host_is_documented() -> None:
    text = (ROOT / "docs/kickstart-server.md").read_text()
    for group in ("host", "kickstart"):
        for name in cli.commands[group].commands:  # type: ignore[attr-defined]
            assert f"goldimg {group} {name}" in text, name


def test_every_kickstart_option_is_explained_where_it_is_set() -> None:
    text = (ROOT / "kickstart/builds/defaults.yml").read_text()
    metal = (ROOT / "kickstart/builds/metal/defaults.yml").read_text()
    example = "".join(
        path.read_text() for path in (ROOT / "kickstart/builds/metal").glob("*.example")
    )
    virtual = (ROOT / "kickstart/builds/virtual/defaults.yml").read_text()
    for key in Options.model_fields:
        assert re.search(rf"\b{key}:", text + metal + example + virtual), key


def test_the_readme_names_commands_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"^    goldimg (\w+)", text, re.MULTILINE):
        assert name in cli.commands, name
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
