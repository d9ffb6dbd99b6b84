"""The page of a build: what `goldimg build` tells of itself reaches whoever looks at it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from goldimg.events import Bus
from goldimg.serve.recorder import Recorder
from tests.serving import Served, served

NAME = "CentOS-7.2.1511-1.0.0_azure"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "site") as found:
        yield found


def png(grey: int) -> bytes:
    """A picture of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes([0, grey]))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def building(site: Served, work: Path) -> Bus:
    """A build's events, as `goldimg build` hands them to the page."""
    bus = Bus()
    artifacts = site.service.site.artifacts
    bus.subscribe(
        Recorder(
            site.service.store,
            lambda build: f"CentOS-7.2.1511-1.0.0_{build}",
            lambda build: artifacts / "1.0.0/CentOS-7.2.1511" / build,
        )
    )
    bus.emit("azure", "phase", "boot", phase="boot")
    bus.emit("azure", "files", "", log="", console="", picture=str(work / "screen.png"))
    return bus


def test_the_page_shows_phases_log_and_the_screen_while_it_runs(
    site: Served, tmp_path: Path
) -> None:
    bus = building(site, tmp_path)
    client = site.logged_in()
    assert "picture.png" not in client.get(f"/builds/{NAME}").text
    assert client.get(f"/builds/{NAME}/picture.png").status_code == 404
    (tmp_path / "screen.png").write_bytes(png(0))
    bus.emit("azure", "stage", "Install <openssh>")
    page = client.get(f"/builds/{NAME}").text
    assert "boot" in page
    assert "Install &lt;openssh&gt;" in page
    picture = client.get(f"/builds/{NAME}/picture.png")
    assert (picture.data, picture.content_type) == (png(0), "image/png")
    (tmp_path / "screen.png").write_bytes(png(255))
    assert client.get(f"/builds/{NAME}/picture.png").data == png(255)


def test_the_log_names_each_task_once_and_how_long_it_took(site: Served, tmp_path: Path) -> None:
    bus = building(site, tmp_path)
    for task, seconds in (("Install the packages", 12.34), ("Write a file", 0.2)):
        bus.emit("azure", "stage", task)
        bus.emit("azure", "task", task, seconds=seconds)
    bus.emit("azure", "warning", "no news for 101 s")
    page = site.logged_in().get(f"/builds/{NAME}").text
    assert "Install the packages\n  took 12.3 s\nWrite a file\nwarning: no news for 101 s" in page


def test_after_a_failure_the_last_picture_stays(site: Served, tmp_path: Path) -> None:
    bus = building(site, tmp_path)
    directory = site.service.site.artifacts / "1.0.0/CentOS-7.2.1511/azure"
    directory.mkdir(parents=True)
    (directory / "failure.png").write_bytes(png(7))
    bus.emit("azure", "failed", "azure: no SSH in time")
    client = site.logged_in()
    assert "no SSH in time" in client.get(f"/builds/{NAME}").text
    assert client.get(f"/builds/{NAME}/picture.png").data == png(7)


def test_artifacts_are_listed_once_all_of_them_are_there(site: Served, tmp_path: Path) -> None:
    bus = building(site, tmp_path)
    directory = site.service.site.artifacts / "1.0.0/CentOS-7.2.1511/azure"
    directory.mkdir(parents=True)
    (directory / "image.vhd").write_bytes(b"x" * (3 << 20))
    client = site.logged_in()
    assert "image.vhd" not in client.get(f"/builds/{NAME}").text
    (directory / "manifest.json").write_text("{}")
    bus.emit("azure", "done", "1 file")
    page = client.get(f"/builds/{NAME}").text
    assert "image.vhd" in page
    assert "3.0 MiB" in page


def test_strangers_see_no_screen_and_no_file_but_a_picture_is_one(
    site: Served, tmp_path: Path
) -> None:
    building(site, tmp_path)
    (tmp_path / "screen.png").write_bytes(png(0))
    assert site.client().get(f"/builds/{NAME}/picture.png").status_code == 302
    (tmp_path / "screen.png").write_text("root:x:0:0")
    assert site.logged_in().get(f"/builds/{NAME}/picture.png").status_code == 404
    for name in ("..", "nosuch", "%2e%2e%2fscreen.png"):
        assert site.logged_in().get(f"/builds/{name}/picture.png").status_code == 404


def test_a_build_goes_on_where_the_page_s_store_is_gone(site: Served, tmp_path: Path) -> None:
    bus = building(site, tmp_path)
    site.service.store.close()
    site.service.store.path.write_text("no database any more")
    bus.emit("azure", "done", "1 file")  # raises nothing
