"""Disks with a root file system that has everything that one can have, in little space."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import needs

MIB = 1 << 20


def make_tree(tree: Path) -> Path:
    """A small Linux in the directory `tree`: capabilities, ACLs, hard links, devices, odd names."""
    needs("setcap", "setfacl", "setfattr", "busybox")
    if os.geteuid() != 0:
        pytest.skip("needs root to make device nodes and to mount")
    for name in ("etc", "usr/bin", "bin", "lib", "dev", "proc", "sys", "run", "tmp", "boot"):
        (tree / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", tree / "bin/busybox")
    (tree / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nNAME=Debian\n')
    (tree / "etc/debian_version").write_text("12.1\n")
    (tree / "etc/fstab").write_text("LABEL=root / auto defaults 0 1\n")
    (tree / "etc/hostname").write_text("golden\n")
    (tree / "etc/link").symlink_to("hostname")
    (tree / "usr/bin/ping").write_bytes(b"\x7fELF" * MIB)
    os.link(tree / "usr/bin/ping", tree / "usr/bin/ping2")
    (tree / "proc/left").write_text("x")
    (tree / "tmp/new\nline").write_text("odd name")
    (tree / "tmp/-rf").write_text("odd name")
    with (tree / "tmp/holes").open("wb") as stream:
        stream.seek(3 * MIB)
        stream.write(b"after a hole")
    with (tree / "tmp/scattered").open("wb") as stream:
        for number in range(300):  # more extents than are asked for at once
            stream.seek(number * 12288)
            stream.write(bytes((number % 255 + 1,)) * 4096)
    with (tree / "tmp/promised").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, 64 << 10)
        stream.seek(32 << 10)
        stream.write(b"written, between what was only promised")
    deep = tree / "tmp" / ("d" * 90) / ("e" * 200)
    deep.mkdir(parents=True)
    (deep / "file").write_text("a long name")
    (tree / "tmp/far").symlink_to("/" + "x" * 180)
    os.link(tree / "tmp/far", tree / "tmp/far too", follow_symlinks=False)
    (tree / "tmp/grüße").write_text("not ASCII")
    Path(os.fsdecode(os.fsencode(tree / "tmp") + b"/latin-\xfc")).write_text("nor UTF-8")
    os.chown(tree / "tmp/grüße", 3_000_000, 4_000_000_000)
    os.chown(tree / "tmp", 1234, 4321)
    os.mkfifo(tree / "tmp/pipe")
    os.mknod(tree / "dev/null", 0o20666, os.makedev(1, 3))
    os.mknod(tree / "tmp/disk", 0o60600, os.makedev(7, 0))
    _run("setcap", "cap_net_raw+ep", tree / "usr/bin/ping")
    _run("setfacl", "-m", "u:1234:r", tree / "etc/hostname")
    _run("setfacl", "-d", "-m", "g:77:rx", tree / "usr")
    _run("setfattr", "-n", "user.note", "-v", "hi", tree / "etc/hostname")
    return tree


def ext4_disk(tree: Path, raw: Path) -> Path:
    """A disk of 48 MiB with one ext4 partition that holds `tree`."""
    needs("mke2fs", "sfdisk")
    with raw.open("wb") as file:
        file.truncate(48 * MIB)
    subprocess.run(["sfdisk", "-q", raw], input=b"2048,,83,*\n", check=True)
    offset = ("-E", "offset=1048576", "-L", "root", raw, "48128")
    _run("mke2fs", "-q", "-t", "ext4", "-d", tree, *offset)
    return raw


def _run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True)
