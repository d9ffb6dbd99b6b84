"""Every operating system in templates/os/ is ready for every provider; adding one is one file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from goldimg.config import load_settings
from goldimg.config.models import Settings
from goldimg.config.settings import list_oses
from goldimg.cpu import FLAGS, lacks
from goldimg.errors import ConfigError
from goldimg.host import Accelerator, Host
from goldimg.inputs import Recipe, make_recipe, public_key_of, tool_versions
from goldimg.kickstart.check import check_all
from goldimg.layout import data_root, lay_out
from goldimg.packer.template import Native, Ovmf, make_template
from goldimg.plan import HYPERVISORS
from goldimg.project import Site
from goldimg.providers import all_providers
from goldimg.run import Runner
from tests.support import needs
from tests.test_packer import accepted, make_spec
from tests.verified import note

GOLDIMG = Path(sys.executable).parent / "goldimg"
SHIPPED = {
    *("CentOS-7.2.1511", "CentOS-7.3.1611", "CentOS-7.6.1810", "RedHat-7.2"),
    *("AlmaLinux-8", "AlmaLinux-9", "AlmaLinux-10", "Rocky-8", "Rocky-9", "Rocky-10"),
    *("CentOS-Stream-9", "CentOS-Stream-10", "RedHat-8", "RedHat-9", "RedHat-10"),
    *("OracleLinux-8", "OracleLinux-9"),
    *("Debian-12", "Debian-13", "Debian-12-netinst", "Debian-13-netinst", "Debian-12-metal"),
}
SITE = """
os_mirrors:
  RedHat: http://mirror.example.com/rhel
  Debian: {repo: "http://mirror.example.com/debian"}
"""
HOST = Host(
    cores=2,
    memory_mib=8192,
    accelerator=Accelerator(name="tcg", reason="test"),
    builders=frozenset(HYPERVISORS),
)
# Of a distribution that goldimg knows nothing of, so that its file has to say everything.
OWN = """
os_name: Harbour Linux
os_version: "3.1"
iso: harbour-{os_version}-boot
iso_checksum: file:{iso_server}/{os_version}/CHECKSUM
iso_server: https://harbour.example.com
iso_url: "{iso_server}/{os_version}/{iso_file}"
repo_server: https://harbour.example.com
installer: {kind: anaconda}
kickstart: {family: el, syntax: RHEL9, repo_path: "{repo_server}/{os_version}/os"}
boot:
  bios: "<up><tab> inst.ks={ks_url}<enter>"
  efi: "<up>e<down><down><end> inst.ks={ks_url}<leftCtrlOn>x<leftCtrlOff>"
cpu: x86-64-v2
package_manager: dnf
python: "3.9"
sftp_server: /usr/libexec/openssh/sftp-server
guest_os: {virtualbox: RedHat_64, vmware: rhel9-64}
""".replace("harbour-{os_version}-boot", "harbour-3.1-boot")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(root=tmp_path / "site")
    lay_out(made.root)
    (made.templates / "site.yml").write_text(SITE)
    return made


def load(site: Site, name: str, *variables: str) -> Settings:
    return load_settings(site, name, environ={}, variables=variables)


def recipes(site: Site, names: list[str]) -> dict[str, Recipe]:
    """What `goldimg plan` makes for all providers, kickstarts checked as it checks them."""

    def one(name: str) -> tuple[str, Recipe]:
        recipe = make_recipe(
            site,
            load(site, name),
            list(all_providers().values()),
            version="1.0.0",
            jobs=None,
            host=HOST,
            public_key=public_key_of(site),
            runner=Runner(),
        )
        return name, recipe

    with ThreadPoolExecutor(4) as pool:
        return dict(pool.map(one, names))


def sections(recipe: Recipe, tmp_path: Path) -> Iterator[dict[str, object]]:
    """The builder sections of each provider by QEMU and by its own hypervisor, BIOS and EFI."""
    settings = recipe.settings
    for provider in all_providers().values():
        for builder in sorted({"qemu", provider.native_builder}):
            for firmware in provider.firmwares:
                spec = make_spec(tmp_path)
                ids = settings.os.guest_os
                native = Native(vm_name="goldimg", guest_os=ids.get(HYPERVISORS[builder], ""))
                is_efi = firmware == "efi"
                ovmf = Ovmf(code=tmp_path / "code", variables=tmp_path / "vars")
                machine = replace(
                    spec.machine,
                    firmware=firmware,
                    memory_mib=settings.memory_mib,
                    ovmf=ovmf if is_efi else None,
                )
                keys = settings.boot_command("{{ user `ks_url` }}", "efi" if is_efi else "bios")
                found = make_template(
                    replace(
                        spec,
                        name=f"{provider.name}-{builder}-{firmware}",
                        machine=machine,
                        builder=builder,
                        native=None if builder == "qemu" else native,
                        boot_command=keys,
                        efi_variables=tmp_path / "own" if is_efi and builder == "qemu" else None,
                    )
                )
                yield found["builders"][0]  # type: ignore[index]


def check_contract(site: Site, names: list[str], tmp_path: Path) -> dict[str, Recipe]:
    """Of each OS and provider: plan made, kickstart right, template to Packer's liking."""
    needs("packer", "ansible-playbook", "ksvalidator", "debconf-set-selections")
    checked = check_all(site, Runner(), oses=names, environ={})
    assert [it for it in checked if it.problems or it.text is None] == []
    assert {(it.os, it.build.partition("/")[2]) for it in checked} == {
        (name, provider) for name in names for provider in all_providers()
    }
    made = recipes(site, names)
    distinct: dict[str, object] = {}
    for name, recipe in made.items():
        assert {layer.provider for layer in recipe.plan.layers} == set(all_providers()), name
        assert all(layer.artifacts for layer in recipe.plan.layers)
        for section in sections(recipe, tmp_path):
            # what differs in nothing but the name goes in once
            shape = json.dumps({**section, "name": "", "vm_name": ""}, sort_keys=True)
            distinct.setdefault(shape, {**section, "name": f"build-{len(distinct)}"})
    template = make_template(make_spec(tmp_path))
    accepted({**template, "builders": list(distinct.values())}, tmp_path)
    return made


def test_the_catalogue_is_whole_and_documented(site: Site) -> None:
    assert set(list_oses(site)) == SHIPPED
    table = (data_root() / "docs/operating-systems.md").read_text().partition("**CPU.**")[0]
    assert set(re.findall(r"`([A-Z]\w+-[\w.-]+)`", table)) == SHIPPED


def test_every_os_is_ready_for_every_provider(site: Site, tmp_path: Path) -> None:
    made = check_contract(site, list_oses(site), tmp_path)
    tools = tool_versions(Runner())
    note("kickstart", made, all_providers(), {"pykickstart": tools["pykickstart"]})
    note("packer", made, all_providers(), {"packer": tools["packer"]})
    texts = {name: recipe.plan.installs[0].kickstart for name, recipe in made.items()}
    for name, text in texts.items():
        assert "d-i " in text if "netinst" in name else "bootloader --location=mbr" in text, name


def test_adding_an_os_is_one_file(site: Site, tmp_path: Path) -> None:
    (site.os_dir / "Harbour-3.1.yml").write_text(OWN)
    made = check_contract(site, ["Harbour-3.1"], tmp_path)
    settings = made["Harbour-3.1"].settings
    assert settings.iso_urls() == ("https://harbour.example.com/3.1/harbour-3.1-boot.iso",)
    assert settings.checksum_lists() == ("https://harbour.example.com/3.1/CHECKSUM",)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_release_gets_what_it_needs(site: Site, name: str) -> None:
    settings = load(site, name)
    syntax = settings.os.kickstart.syntax
    is_el = settings.os.kickstart.family == "el"
    wanted = {"RHEL10": "x86-64-v3", "RHEL9": "x86-64-v2"}.get(syntax) if is_el else None
    assert settings.os.cpu == wanted
    assert settings.memory_mib >= (2048 if is_el and syntax != "RHEL7" else 1536)
    repositories = [url for _, url in settings.extra_repos() if "AppStream" in url.replace(
        "appstream", "AppStream")]  # fmt: skip
    assert len(repositories) == (is_el and syntax != "RHEL7")
    assert settings.os.python == {"RHEL7": "2.7", "RHEL8": "3.6", "RHEL10": "3.12"}.get(
        syntax, settings.os.python
    )
    # EL10 has no isolinux: at its menu, in GRUB, a tab completes and an "e" edits
    assert settings.os.boot.bios.startswith("<up>e") == (syntax == "RHEL10")


@pytest.mark.parametrize(
    ("syntax", "selinux"), [("RHEL7", "selinux --disabled"), ("RHEL8", "selinux=enforcing")]
)
def test_selinux_is_on_from_el8_and_may_be_off(site: Site, syntax: str, selinux: str) -> None:
    name = "CentOS-7.6.1810" if syntax == "RHEL7" else "Rocky-8"
    text = goldimg(site, "kickstart", "render", "virtual/aws", "-O", name).stdout
    assert selinux in text
    path = site.kickstart / "builds/virtual/aws.yml"
    path.write_text("selinux: disabled\nfirewall: [ssh, 8443/tcp]\n")
    changed = goldimg(site, "kickstart", "render", "virtual/aws", "-O", name).stdout
    assert "selinux --disabled" in changed
    assert "firewall --enabled --service=ssh --port=8443:tcp" in changed


# --- what users write wrong --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("installer: {kind: anaconda}", ""), "installer: required key is missing"),
        (("python: ", "pyhton: "), "Harbour-3.1.yml:16:1: pyhton: unknown key (did you mean 'pyth"),
        (("file:{iso_server}/{os_version}/CHECKSUM", "md5:abc"), ":5:1: iso_checksum: must be 64"),
        (("file:{iso_server}", "file:{server}"), ":5:1: iso_checksum: has a placeholder other"),
        (("kind: anaconda", "kind: anacoda"), ":9:13: installer.kind: must be one of anaconda"),
        (("x86-64-v2", "x86-64-v9"), ":14:1: cpu: must be one of x86-64"),
        (("RHEL9", "rhel9"), "kickstart.syntax: must be such as"),
        (("python: ", "least_memory: 1\npython: "), "least_memory: must be at least 256"),
        (("iso_server: https", "iso_server: ftp"), ":6:1: iso_server: must be an http:// or https"),
        (("inst.ks={ks_url}<enter>", "<enter>"), "boot.bios: must contain {ks_url}"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_place(
    site: Site, change: tuple[str, str], told: str
) -> None:
    (site.os_dir / "Harbour-3.1.yml").write_text(OWN.replace(*change))
    with pytest.raises(ConfigError) as caught:
        load(site, "Harbour-3.1")
    assert "templates/os/Harbour-3.1.yml:" in str(caught.value)
    assert told in str(caught.value)


def test_one_wrong_file_hides_nothing_else(site: Site) -> None:
    (site.os_dir / "Harbour-3.1.yml").write_text(OWN.replace("x86-64-v2", "i386"))
    done = goldimg(site, "os", "list")
    assert done.returncode == 2
    assert "error: templates/os/Harbour-3.1.yml:14:1: cpu: must be one of" in done.stderr
    rows = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines()}
    assert (rows["Harbour-3.1"], rows["Rocky-9"]) == ("wrong", "ok")
    done = goldimg(site, "plan", "-O", "Harbour-3.1")
    assert done.returncode == 2
    assert "templates/os/Harbour-3.1.yml:14:1: cpu: must be one of" in done.stderr


def test_what_a_site_has_to_supply_is_asked_for_once_it_is_built(tmp_path: Path) -> None:
    bare = Site(root=tmp_path / "bare")
    lay_out(bare.root)
    settings = load(bare, "RedHat-9")
    assert [problem.key for problem in settings.unsupplied()] == ["iso_server", "repo_server"]
    done = goldimg(bare, "os", "show", "RedHat-9", "--check")
    assert done.returncode == 2
    assert "give os_mirrors.RedHat in site.yml, or iso_path" in done.stderr
    assert goldimg(bare, "os", "list").returncode == 0
    done = goldimg(bare, "plan", "-O", "RedHat-9")
    assert done.returncode == 2
    assert "repo_server: is not set: give os_mirrors.RedHat in site.yml" in done.stderr
    assert "hint: docs/operating-systems.md" in done.stderr


def test_a_mirror_of_nobody_is_remarked_on(site: Site) -> None:
    (site.templates / "site.yml").write_text("os_mirrors: {Almalinux: http://m.example.com}\n")
    done = goldimg(site, "os", "list")
    assert "os_mirrors.Almalinux is of no operating system here" in done.stderr
    assert "did you mean 'AlmaLinux" in done.stderr
    (site.templates / "site.yml").write_text("os_mirrors: {CentOS: {isos: http://m}}\n")
    done = goldimg(site, "os", "list")
    assert "site.yml:1:23: os_mirrors.CentOS.isos: unknown key (did you mean 'iso'?)" in done.stderr


# --- what is shown -----------------------------------------------------------------------------


def goldimg(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [GOLDIMG, *words], cwd=site.root, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_list_says_where_each_is_from(site: Site) -> None:
    done = goldimg(site, "os", "list")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:]}
    assert rows.keys() == SHIPPED
    assert rows["RedHat-9"] == ["anaconda", "rhel-9.8-x86_64-boot.iso", "mirror.example.com", "ok"]
    assert rows["Debian-13"] == ["debian-packages", "trixie", "packages", "ok"]
    entries = json.loads(goldimg(site, "os", "list", "--json").stdout)
    assert {entry["name"] for entry in entries} == SHIPPED


def test_one_is_shown_in_full_and_without_secrets(site: Site) -> None:
    mirror = "http://user:hunter2@mirror.example.com/rocky"
    (site.templates / "site.yml").write_text(f"os_mirrors: {{Rocky-9: '{mirror}'}}\n")
    shown = json.loads(goldimg(site, "os", "show", "Rocky-9", "--json").stdout)
    assert shown["iso_urls"][:2] == [
        "http://mirror.example.com/rocky/9/isos/x86_64/Rocky-9-latest-x86_64-boot.iso",
        "https://download.rockylinux.org/pub/rocky/9/isos/x86_64/Rocky-9-latest-x86_64-boot.iso",
    ]
    assert shown["repository"] == "http://mirror.example.com/rocky/9/BaseOS/x86_64/os"
    assert shown["extra_repositories"].keys() == {"AppStream"}
    assert (shown["syntax"], shown["cpu"], shown["memory_mib"]) == ("RHEL9", "x86-64-v2", 2048)
    done = goldimg(site, "os", "show", "Rocky-9")
    assert "hunter2" not in done.stdout + done.stderr
    assert "Rocky-9-latest-x86_64-boot.iso" in done.stdout


# --- processors --------------------------------------------------------------------------------


def cpu(tmp_path: Path, flags: Collection[str]) -> Path:
    (tmp_path / "proc").mkdir(exist_ok=True)
    (tmp_path / "proc/cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu {' '.join(flags)}\n")
    return tmp_path


def test_el10_is_not_started_where_it_would_die_at_once(tmp_path: Path) -> None:
    old = cpu(tmp_path, FLAGS["x86-64-v2"])
    assert lacks("x86-64-v2", {"qemu"}, "kvm", "7.2.22", old) == ""
    why = lacks("x86-64-v3", {"qemu"}, "kvm", "7.2.22", old)
    assert why.startswith("this machine's CPU is not x86-64-v3: it has no abm, avx, avx2")
    assert lacks("x86-64-v3", {"virtualbox-iso"}, "tcg", "7.2.22", old) == why
    assert lacks("x86-64-v3", {"qemu"}, "tcg", "7.2.22", old) == ""  # emulated
    assert "QEMU 7.1.0 does not emulate" in lacks("x86-64-v3", {"qemu"}, "tcg", "7.1.0", old)
    assert lacks(None, {"qemu"}, "kvm", "5.2", old) == ""
    new = cpu(tmp_path, FLAGS["x86-64-v3"])
    assert lacks("x86-64-v3", {"qemu", "vmware-iso"}, "kvm", "7.2.22", new) == ""


def test_emulated_cpus_have_what_el10_wants() -> None:
    """By QEMU's own word: with `enforce` it does not start where it lacks a feature."""
    needs("qemu-system-x86_64")
    features = "ssse3,sse4.1,sse4.2,popcnt,cx16,avx,avx2,bmi1,bmi2,f16c,fma,abm,movbe,xsave"
    wanted = ",".join(f"+{name}" for name in features.split(","))
    said = subprocess.run(
        ["qemu-system-x86_64", "-accel", "tcg", "-cpu", f"qemu64,{wanted},enforce", "-m", "16",
         "-display", "none", "-nodefaults", "-S", "-monitor", "stdio"],
        input="quit\n", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr


def test_unknown_cpu_levels_are_refused(site: Site) -> None:
    with pytest.raises(ConfigError, match="cpu: must be one of x86-64, x86-64-v2, x86-64-v3"):
        load(site, "Rocky-10", "cpu=x86-64-v4")


def test_a_point_release_of_the_past_is_a_copy_with_another_number(site: Site) -> None:
    """As docs/operating-systems.md has it."""
    text = (site.os_dir / "Rocky-9.yml").read_text()
    changed = text.replace('os_version: "9"', 'os_version: "9.4"').replace("9-latest", "9.4")
    (site.os_dir / "Rocky-9.4.yml").write_text(changed)
    settings = load(site, "Rocky-9.4")
    vault = "https://dl.rockylinux.org/vault/rocky/9.4"
    assert settings.iso_urls()[-1] == f"{vault}/isos/x86_64/Rocky-9.4-x86_64-boot.iso"
    assert settings.checksum_lists()[-1] == f"{settings.iso_urls()[-1]}.CHECKSUM"
    assert settings.repo_candidates()[-1] == f"{vault}/BaseOS/x86_64/os"
    assert (settings.os.kickstart.syntax, settings.os.cpu) == ("RHEL9", "x86-64-v2")
