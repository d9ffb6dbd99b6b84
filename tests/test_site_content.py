"""What a site adds to its images: found in order, checked before a VM starts, part of the digest.

Here the additions run on this machine, against a directory; test_real_build.py runs them in guests.
Packer is tests/packing.py's stand-in.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from goldimg.additions import check_additions, environment_of, find_additions, write_playbook
from goldimg.config import load_settings
from goldimg.errors import ConfigError
from goldimg.galaxy import fetch_requirements, galaxy_directory
from goldimg.inputs import base_key, layer_key
from goldimg.keys import ensure_keys
from goldimg.layout import lay_out
from goldimg.packer.driver import Story, failure
from goldimg.plan import Install
from goldimg.playbook import ansible_environment, extra_variables
from goldimg.project import Site
from goldimg.run import Redactor, Runner
from tests.packing import PackingSite
from tests.support import needs

BIN = Path(sys.executable).parent
VARIABLES = {
    "packer_build_name": "gcp",
    "packer_version": "1.2.3",
    "packer_namespace": "tests",
    "packer_ks_server": "",
    "packer_template": "Debian-12",
    "packer_os": {"os_name": "Debian", "os_version": "12", "kickstart": {"family": "debian"}},
    "goldimg_root_hash": "$6$a-secret-hash",
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    lay_out(tmp_path / "site")
    return Site(root=tmp_path / "site")


def add(site: Site, name: str, text: str) -> Path:
    path = site.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def play(*tasks: str, **keys: str) -> str:
    """A playbook of one play; each task is a line of YAML."""
    extra = "".join(f"  {key}: {value}\n" for key, value in keys.items())
    listed = "".join(f"    - {task}\n" for task in tasks)
    return (
        f"- name: Add\n  hosts: all\n  gather_facts: false\n{extra}  tasks:\n{listed or '    []'}"
    )


def append(where: str) -> str:
    """A task that adds its own file's name to the file `where`, as the file's last line."""
    shell = f'echo "{where.rpartition("/")[2]}" >> {{{{ order_file }}}}'
    return f"{{name: Add a line, ansible.builtin.shell: '{shell}', changed_when: true}}"


def run_here(
    site: Site, provider: str, tmp_path: Path, extra: dict[str, object] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the additions as a build does, on this machine and without Mitogen."""
    book, given = tmp_path / "additions.yml", {**(extra or {})}
    additions = find_additions(site, provider)
    write_playbook(book, additions, site, environment_of(VARIABLES, given))
    variables = {**given, **VARIABLES, "ansible_python_interpreter": sys.executable}
    variables["ansible_remote_tmp"] = str(tmp_path / "remote")
    (tmp_path / "vars.json").write_text(json.dumps(variables))
    env = {**ansible_environment(site, tmp_path / "local"), "ANSIBLE_STRATEGY": "linear"}
    return subprocess.run(
        [
            *(BIN / "ansible-playbook", "-i", "localhost,", "-c", "local", book),
            *("--extra-vars", f"@{tmp_path}/vars.json"),
        ],
        env={
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
            **env,
        },
        capture_output=True,
        text=True,
        check=False,
    )


# --- found, in order ---------------------------------------------------------------------------


def test_a_new_site_has_examples_and_adds_nothing(site: Site) -> None:
    for name in (
        "ansible/site.d/50-example.yml",
        "ansible/requirements.yml",
        "scripts/50-example.sh",
    ):
        assert (site.root / f"{name}.example").is_file()
    assert not find_additions(site, "aws")
    for name in ("ansible/site.d/50-example.yml", "scripts/50-example.sh"):
        shutil.copy(site.root / f"{name}.example", site.root / name)
    check_additions(site, ["aws"])
    assert find_additions(site, "aws")


def test_playbooks_of_all_come_before_the_providers_and_scripts_last(
    site: Site, tmp_path: Path
) -> None:
    order = tmp_path / "order"
    for name in (
        "site.d/20-b.yml",
        "site.d/10-a.yml",
        "site.d/gcp/05-own.yml",
        "site.d/aws/01-no.yml",
    ):
        add(site, f"ansible/{name}", play(append(name)))
    add(site, "scripts/20-z.sh", f"#!/bin/bash\necho 20-z.sh $MINE ${{LIST-none}} >> {order}\n")
    variables = "$PACKER_BUILD_NAME $PACKER_VERSION $PACKER_OS_NAME"
    add(site, "scripts/10-y.sh", f"echo 10-y.sh {variables} >> {order}\n")
    done = run_here(site, "gcp", tmp_path, {"order_file": str(order), "mine": "yes", "list": [1]})
    assert done.returncode == 0, done.stdout + done.stderr
    assert order.read_text().splitlines() == [
        "10-a.yml",
        "20-b.yml",
        "05-own.yml",
        "10-y.sh gcp 1.2.3 Debian",
        "20-z.sh yes none",
    ]


def test_no_secret_reaches_the_environment_of_scripts() -> None:
    around = environment_of(VARIABLES, {"flag": True})
    assert around["FLAG"] == "true"
    assert "secret" not in json.dumps(around)


def test_a_failing_task_is_named_with_its_file(site: Site, tmp_path: Path) -> None:
    task = "{name: Break it, ansible.builtin.command: /bin/false, changed_when: false}"
    add(site, "ansible/site.d/10-broken.yml", play(task))
    done = run_here(site, "gcp", tmp_path)
    assert done.returncode == 2
    story = Story(on_phase=print, on_detail=print)
    for line in done.stdout.splitlines():
        story.hear(line)
    error = failure("gcp", story, tmp_path / "build.log")
    assert error.what == "gcp: Ansible task 'Break it' failed"
    assert error.details[0].startswith("at: ansible/site.d/10-broken.yml:")


def test_a_failing_script_is_named(site: Site, tmp_path: Path) -> None:
    add(site, "scripts/10-broken.sh", "#!/bin/sh\necho the disk of sorrow >&2\nexit 3\n")
    done = run_here(site, "gcp", tmp_path)
    assert done.returncode == 2
    assert "TASK [scripts/10-broken.sh]" in done.stdout
    assert "the disk of sorrow" in done.stdout


# --- part of the layer's digest, and of nothing else ---------------------------------------------


def test_additions_change_the_layers_that_have_them_and_no_base(site: Site) -> None:
    ensure_keys(site.keys, Runner(redactor=Redactor()))
    install = Install(
        name="gcp", builder="qemu", serves=("gcp",), kickstart="text", volumes=(), layers=()
    )

    def keys(**variables: object) -> dict[str, str]:
        given = [f"{key}={value}" for key, value in variables.items()]
        settings = load_settings(site, "Debian-12", variables=given, environ={})
        base = base_key(install, "iso", {}, settings, site)
        layers = {name: layer_key(base, name, "1.0.0", settings, site) for name in ("aws", "gcp")}
        return {"base": base, **layers}

    def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
        return {name for name in before if before[name] != after[name]}

    first = keys()
    add(site, "ansible/site.d/gcp/10-own.yml", play(append("x")))
    own = keys()
    assert changed(first, own) == {"gcp"}
    add(site, "ansible/site.d/files/motd", "hello\n")
    assert changed(own, keys()) == {"gcp"}
    add(site, "ansible/site.d/10-all.yml", play(append("x")))
    everyone = keys()
    assert changed(own, everyone) == {"aws", "gcp"}
    add(site, "ansible/requirements.yml", "roles: []\n")
    assert changed(everyone, keys()) == {"aws", "gcp"}
    everyone = keys()
    add(site, "scripts/10-x.sh", "true\n")
    assert changed(everyone, keys()) == {"aws", "gcp"}
    everyone = keys()
    assert changed(everyone, keys(**{"extra_vars.motd": "hello"})) == {"aws", "gcp"}
    assert changed(everyone, keys(updates="true")) == {"base", "aws", "gcp"}
    of_ours = keys(**{"extra_vars.goldimg_distribution_repos": "true"})
    assert changed(everyone, of_ours) == {"base", "aws", "gcp"}


def test_a_base_gets_only_variables_of_the_playbooks_that_are_ours() -> None:
    given = {"goldimg_distribution_repos": True, "motd": "hello"}
    assert extra_variables(given, "base") == {"goldimg_distribution_repos": True}
    assert extra_variables(given, "layer") == given


def test_variables_of_packer_and_ansible_are_not_the_sites(site: Site) -> None:
    for name in ("packer_version", "ansible_user", "a-b"):
        with pytest.raises(ConfigError, match="must be a variable's name of yours"):
            load_settings(site, "Debian-12", variables=[f"extra_vars.{name}=x"], environ={})


# --- what is wrong is said before a VM starts ----------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- name: A task\n  ansible.builtin.debug:\n", "holds tasks and no play"),
        ("just words\n", "must be a playbook"),
        ("", "must be a playbook"),
        ("- hosts: [all\n", "bad.yml:2:1"),
    ],
)
def test_a_file_that_is_no_playbook_is_named(site: Site, text: str, said: str) -> None:
    add(site, "ansible/site.d/bad.yml", text)
    add(site, "scripts/empty.sh", "\n")
    with pytest.raises(ConfigError) as caught:
        check_additions(site, ["aws", "gcp"])
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) == 2
    assert found[0].startswith("ansible/site.d/bad.yml")
    assert said in found[0]
    assert found[1] == "scripts/empty.sh: is empty"


def test_ansibles_own_tags_are_no_mistake(site: Site) -> None:
    vault = play("{ansible.builtin.debug: {msg: hidden}}", vars="{secret: !vault 'x'}")
    add(site, "ansible/site.d/10-vault.yml", vault)
    check_additions(site, ["aws"])


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackingSite]:
    made = PackingSite(tmp_path_factory.mktemp("content"))
    yield made
    made.end()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "ansible/site.d/10-role.yml",
            "- hosts: all\n  roles: [no_such_role]\n",
            "the role 'no_such_role' was not found",
        ),
        (
            "ansible/site.d/10-module.yml",
            "- hosts: all\n  tasks:\n    - no_such_module: {}\n",
            "no_such_module",
        ),
        (
            "ansible/requirements.yml",
            "roles:\n  - {src: git+file:///no/such/repository, name: hardening}\n",
            "ansible/requirements.yml: a role cannot be fetched",
        ),
        (
            "ansible/requirements.yml",
            "collections:\n  - {name: /no/such/collection.tar.gz, type: file}\n",
            "ansible/requirements.yml: a collection cannot be fetched",
        ),
        ("ansible/requirements.yml", "rolls: []\n", "must hold 'roles' and 'collections'"),
    ],
)
def test_what_is_wrong_stops_a_build_before_any_machine_starts(
    packing: PackingSite, name: str, text: str, said: str
) -> None:
    path = packing.root / name
    path.write_text(text)
    packing.calls()
    try:
        done = packing.build("--only", "gcp")
    finally:
        path.unlink()
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert packing.calls() == []
    assert not list((packing.root / ".cache").glob("galaxy/*.part"))


def test_a_build_tells_what_the_site_adds(packing: PackingSite) -> None:
    path = packing.root / "ansible/site.d/10-motd.yml"
    path.write_text(play("{name: Greet, ansible.builtin.debug: {msg: hello}}"))
    try:
        done = packing.build("--only", "gcp", "--version", "3.0.0")
    finally:
        path.unlink()
    assert done.returncode == 0, done.stderr
    assert "site additions: ansible/site.d/10-motd.yml" in done.stderr


# --- roles and collections -----------------------------------------------------------------------


def git(*words: str | Path, cwd: Path) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *words], cwd=cwd, check=True, capture_output=True)


def make_role(directory: Path, said: str) -> Path:
    """A git repository that holds a role, which writes one line."""
    (directory / "tasks").mkdir(parents=True)
    copy = f"ansible.builtin.copy: {{dest: '{{{{ role_file }}}}', content: {said}, mode: '0644'}}"
    (directory / "tasks/main.yml").write_text(f"- name: Say it\n  {copy}\n")
    (directory / "meta").mkdir()
    (directory / "meta/main.yml").write_text("galaxy_info: {author: tests}\ndependencies: []\n")
    git("init", "-q", "-b", "main", ".", cwd=directory)
    git("add", ".", cwd=directory)
    git("commit", "-q", "-m", "A role", cwd=directory)
    return directory


def make_collection(directory: Path) -> Path:
    """A collection in a directory, with one role."""
    (directory / "roles/greet/tasks").mkdir(parents=True)
    (directory / "galaxy.yml").write_text(
        "namespace: tests\nname: greetings\nversion: 1.0.0\nreadme: README.md\nauthors: [tests]\n"
    )
    (directory / "README.md").write_text("Greets.\n")
    debug = "- name: Greet\n  ansible.builtin.debug: {msg: from the collection}\n"
    (directory / "roles/greet/tasks/main.yml").write_text(debug)
    return directory


def test_roles_and_collections_are_fetched_once_and_found(site: Site, tmp_path: Path) -> None:
    needs("git", "ansible-galaxy")
    role = make_role(tmp_path / "role", "from the role")
    collection = make_collection(tmp_path / "collection")
    add(
        site,
        "ansible/requirements.yml",
        f"roles:\n  - {{src: 'git+file://{role}', name: speak, version: main}}\n"
        f"collections:\n  - {{name: {collection}, type: dir}}\n",
    )
    add(
        site,
        "ansible/site.d/10-roles.yml",
        "- hosts: all\n  gather_facts: false\n  roles: [speak, tests.greetings.greet]\n",
    )
    runner = Runner(redactor=Redactor())
    assert fetch_requirements(site, runner) is True
    done = run_here(site, "gcp", tmp_path, {"role_file": str(tmp_path / "said")})
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "said").read_text() == "from the role"
    assert "from the collection" in done.stdout
    # gone, as offline: what was fetched serves
    shutil.rmtree(role)
    shutil.rmtree(collection)
    assert fetch_requirements(site, runner) is False
    # other requirements are other content
    before = galaxy_directory(site)
    path = site.ansible / "requirements.yml"
    path.write_text(path.read_text() + "# another\n")
    assert galaxy_directory(site) != before
    with pytest.raises(ConfigError, match="a role cannot be fetched") as caught:
        fetch_requirements(site, runner)
    assert "does not exist" in "\n".join(caught.value.details)


def test_a_role_of_the_sites_own_needs_no_requirements(site: Site, tmp_path: Path) -> None:
    role = add(site, "ansible/roles/mine/tasks/main.yml", "- ansible.builtin.debug: {msg: mine}\n")
    add(site, "ansible/site.d/10.yml", "- hosts: all\n  gather_facts: false\n  roles: [mine]\n")
    done = run_here(site, "gcp", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"msg": "mine"' in done.stdout
    assert role.is_file()
