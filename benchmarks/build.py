"""Builds one provider the original way and all seven by goldimg, and prints what both cost.

    .venv/bin/python benchmarks/build.py [--skip-original]

The original side is one provider's full install by Packer with the original system's settings: IDE
disk, write-back cache, no discard, slow key strokes, no pipelining, free space zeroed with dd,
compaction with compression, then its conversion and sha256sum. It differs from the original in two
points that make it cheaper: the installer is goldimg's own (no anaconda can be had everywhere), and
the debugging box is not made. Seven times its cost stands for the original's seven providers.

goldimg's side starts from an assembled ISO and no base, like the original's; then one provider's
playbook is changed and that provider is built again. Both sides use the same ISO and playbooks.
At last, what goldimg itself adds to Packer, QEMU and Ansible in one such build (driver.py).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from driver import real

from goldimg.config import load_settings
from goldimg.events import Bus, Event
from goldimg.host import inspect_host
from goldimg.inputs import Recipe, make_recipe
from goldimg.iso.obtain import Iso, obtain_iso
from goldimg.keys import ensure_keys
from goldimg.kickstart.server import KickstartServer
from goldimg.layout import lay_out
from goldimg.project import Site
from goldimg.providers import select_providers
from goldimg.run import Runner

OS = "Debian-12"
PROVIDER = "azure"
ROOT = Path(__file__).resolve().parent.parent
GOLDIMG = Path(sys.executable).parent / "goldimg"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Wall-clock and CPU seconds (user and system, all descendants); peak memory in MiB."""

    wall: float
    cpu: float
    peak_mib: float = 0.0


def children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(argv: list[str | Path], *, cwd: Path, env: dict[str, str] | None = None) -> Cost:
    """Runs a command; its peak memory is its own process's, without what it starts."""
    wall, cpu = time.monotonic(), children_cpu()
    environment = {**os.environ, **(env or {})}
    process = subprocess.Popen(argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL)
    peak = 0.0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    peak = int(line.split()[1]) / 1024
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    watcher.join()
    if code != 0:
        raise SystemExit(f"{argv[0]} failed with exit code {code}")
    return Cost(wall=time.monotonic() - wall, cpu=children_cpu() - cpu, peak_mib=peak)


def prepare(directory: Path, cache: Path) -> tuple[Site, Iso]:
    """A site of its own, with keys, and the ISO out of the checkout's cache."""
    lay_out(directory)
    site = Site(root=directory)
    site.cache.mkdir()
    (cache / "iso").mkdir(parents=True, exist_ok=True)
    (site.cache / "iso").symlink_to(cache / "iso")
    runner, events = Runner(), Bus()

    def tell(event: Event) -> None:
        if event.kind in ("note", "done"):
            print(f"  {event.build} {event.text}", flush=True)

    events.subscribe(tell)
    settings = load_settings(site, OS, environ={})
    ensure_keys(site.keys, runner)
    recipe = recipe_of(site, PROVIDER)
    iso = obtain_iso(settings, recipe.mirrors, site.cache, runner, events)
    return site, iso


def recipe_of(site: Site, provider: str) -> Recipe:
    settings = load_settings(site, OS, environ={})
    return make_recipe(
        site,
        settings,
        select_providers([], [provider], []),
        version="0.0.0",
        jobs=1,
        host=inspect_host(),
        public_key=(site.keys / "packer.pub").read_text().strip(),
        runner=Runner(),
    )


def original(site: Site, iso: Iso, work: Path) -> Cost:
    """One provider with the original system's settings, from ISO to hashed artifacts."""
    settings = load_settings(site, OS, environ={})
    recipe = recipe_of(site, PROVIDER)
    install = recipe.plan.installs[0]
    variables = work / "vars.json"
    variables.write_text(
        json.dumps(
            {
                "packer_build_name": PROVIDER,
                "packer_namespace": "benchmark",
                "packer_version": "0.0.0",
                "packer_ks_server": "",
                "packer_template": OS,
                "packer_os": settings.packer_os(),
                "goldimg_stage": "all",
                "goldimg_root_hash": "",
                "goldimg_root_key": (site.keys / "packer.pub").read_text().strip(),
                "goldimg_vagrant_key": (site.keys / "vagrant.pub").read_text().strip(),
                "goldimg_lang": settings.site.lang,
                "goldimg_keyboard": settings.site.keyboard,
                "goldimg_timezone": settings.site.timezone,
            }
        )
    )
    with KickstartServer(advertise="10.0.2.2") as server:
        path = server.add(install.name, lambda url: recipe.kickstart(site, install, url))
        url = f"http://10.0.2.2:{server.port}{path}"
        template = work / "packer.json"
        template.write_text(json.dumps(original_template(site, iso, work, url, variables)))
        script = work / "original.sh"
        script.write_text(
            "set -e\n"
            f"packer build -color=false {template}\n"
            "cd output\n"
            "qemu-img convert -O vpc -o subformat=fixed,force_size disk.qcow2 disk.vhd\n"
            "sha256sum disk.qcow2 disk.vhd > SHA256SUMS\n"
        )
        env = {"CHECKPOINT_DISABLE": "1", "PATH": f"{GOLDIMG.parent}:{os.environ['PATH']}"}
        return measured(["sh", script], cwd=work, env=env)


def original_template(
    site: Site, iso: Iso, work: Path, url: str, variables: Path
) -> dict[str, object]:
    settings = load_settings(site, OS, environ={})
    return {
        "builders": [
            {
                "name": PROVIDER,
                "type": "qemu",
                "accelerator": "none",
                "iso_url": str(iso.path),
                "iso_checksum": f"sha256:{iso.sha256}",
                "output_directory": str(work / "output"),
                "vm_name": "disk.qcow2",
                "format": "qcow2",
                "disk_size": f"{settings.site.disk_size}M",
                "disk_interface": "ide",
                "disk_cache": "writeback",
                "disk_compression": True,
                "net_device": "virtio-net",
                "headless": True,
                "boot_wait": "10s",
                "boot_command": [settings.boot_command(url)],
                "ssh_username": "root",
                "ssh_private_key_file": str(site.keys / "packer"),
                "ssh_timeout": "40m",
                "ssh_handshake_attempts": 400,
                "shutdown_command": "systemctl poweroff",
                "qemuargs": [["-m", "1024M"], ["-accel", "tcg,thread=multi"], ["-cpu", "max"]],
            }
        ],
        "provisioners": [
            {
                "type": "ansible",
                "playbook_file": str(site.ansible / "site.yml"),
                "use_proxy": False,
                "user": "root",
                "extra_arguments": ["--extra-vars", f"@{variables}"],
                "ansible_env_vars": ["ANSIBLE_PIPELINING=0"],
            },
            {
                "type": "shell",
                "inline": ["dd if=/dev/zero of=/zero bs=1M || true", "rm -f /zero", "sync"],
            },
        ],
    }


def goldimg(site: Site, *arguments: str) -> Cost:
    command: list[str | Path] = [GOLDIMG, "--site", site.root, "build", "-O", OS, *arguments]
    return measured(command, cwd=site.root)


def line(name: str, cost: Cost) -> None:
    peak = f"  peak of goldimg itself {cost.peak_mib:.0f} MiB" if cost.peak_mib else ""
    print(f"{name:<44} wall {cost.wall:7.1f} s   cpu {cost.cpu:7.1f} s{peak}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--skip-original", action="store_true", help="measure goldimg only")
    arguments = parser.parse_args()
    cache = Path(os.environ.get("GOLDIMG_CACHE", ROOT / ".cache")).resolve()
    with tempfile.TemporaryDirectory(prefix="goldimg-benchmark-") as name:
        work = Path(name)
        site, iso = prepare(work / "site", cache)
        print(f"{os.cpu_count()} cores, {inspect_host().accelerator.name}", flush=True)
        one = None
        if not arguments.skip_original:
            (work / "original").mkdir()
            one = original(site, iso, work / "original")
            shutil.rmtree(work / "original")
        everything = goldimg(site, "--no-base-cache")
        playbook = site.ansible / f"{PROVIDER}.yml"
        playbook.write_text(playbook.read_text() + "\n# changed by the benchmark\n")
        again = goldimg(site, "--only", PROVIDER, "--update")
        print()
        if one:
            line(f"original settings, {PROVIDER} alone", one)
            seven = Cost(wall=7 * one.wall, cpu=7 * one.cpu)
            line("original settings, seven times that", seven)
        line("goldimg build, all seven, no base", everything)
        line(f"goldimg build, {PROVIDER} after a change", again)
        if one:
            wall, cpu = seven.wall / everything.wall, seven.cpu / everything.cpu
            print(f"\nratio {wall:.1f} by wall clock, {cpu:.1f} by CPU (aim: 10 or more)")
        share = again.wall / everything.wall
        print(f"rebuild of one provider {share:.1%} of the full build (aim: within 15 %)\n")
        (work / "driver").mkdir()
        real(work / "driver")


if __name__ == "__main__":
    main()
