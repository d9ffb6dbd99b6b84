"""A guest that installs nothing: it does what an installer does on the network, then is sshd.

It waits until a boot command with a kickstart's URL has been typed, fetches the kickstart, reports
the stages, and then takes the SSH key that the kickstart names and no other. Commands that come
over SSH are run here, in a directory of the guest's own, except for the one that powers off: that
ends this process, after a mark has been written to the guest's disk.

Its description is a JSON file: disk, disk_format, keys (file of scan codes) or vnc_port, ssh_host,
ssh_port, host_alias (how the host's loopback is called inside, if it is), home, console.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import paramiko
import requests
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from tests.hypervisors.keyboard import typed_by_codes, typed_by_symbols

MARK = 0x5A  # in 64 KiB of the disk, from its first MiB on
PATIENCE = 120.0  # seconds for the boot command to be typed
SCREEN = struct.pack(">BxHHHHHi", 0, 1, 0, 0, 8, 4, 0) + bytes(4 * 8 * 4)  # a small black one


class Login(paramiko.ServerInterface):
    """Lets root in by one key, and says what is to be run."""

    def __init__(self, key: str) -> None:
        self.key = key.split()[1]

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        is_right = username == "root" and key.get_base64() == self.key
        return AUTH_SUCCESSFUL if is_right else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_pty_request(self, *_: Any) -> bool:
        return True

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=Guest.current.execute, args=(channel, command.decode())).start()
        return True


class Guest:
    """One running machine."""

    current: Guest

    def __init__(self, described: dict[str, Any]) -> None:
        self.described = described
        self.home = Path(described["home"])
        self.home.mkdir(exist_ok=True)

    def live(self) -> None:
        """From power-on to power-off."""
        url = self.wait_for_url()
        alias = self.described.get("host_alias")
        if alias:
            url = url.replace(alias, "127.0.0.1")
        answer = requests.get(url, timeout=20)
        answer.raise_for_status()
        kickstart = answer.text
        (self.home / "kickstart.ks").write_text(kickstart)
        self.report(kickstart, alias)
        found = re.search(r"ssh-(?:ed25519|rsa) [A-Za-z0-9+/=]+", kickstart)
        assert found, "the kickstart lets nobody in"
        self.serve(found[0])

    def wait_for_url(self) -> str:
        end = time.monotonic() + PATIENCE
        keys = self.vnc_keys() if "vnc_port" in self.described else self.file_keys
        while time.monotonic() < end:
            text = keys()
            if match := re.search(r"(?:inst\.)?ks=(\S+).*\n", text):
                Path(self.described["console"]).write_text(f"typed: {text}")
                return match[1]
            time.sleep(0.1)
        raise TimeoutError("no boot command was typed")

    def file_keys(self) -> str:
        path = Path(self.described["keys"])
        words = path.read_text().split() if path.exists() else []
        return typed_by_codes(int(word, 16) for word in words)

    def vnc_keys(self) -> Any:
        """Serves VNC clients, who may type and look (RFC 6143); returns what reads their text."""
        symbols: list[int] = []

        def serve(client: socket.socket) -> None:
            gone = (EOFError, ConnectionError)
            with contextlib.suppress(*gone), client, client.makefile("rb") as stream:
                _greet(client, stream)
                while True:
                    if _take_message(stream, symbols):
                        client.sendall(SCREEN)
                        (self.home / "looked").touch()

        def listen() -> None:
            address = ("127.0.0.1", int(self.described["vnc_port"]))
            with socket.create_server(address) as listening:
                (self.home / "ready").touch()
                while True:
                    client, _ = listening.accept()
                    threading.Thread(target=serve, args=(client,), daemon=True).start()

        threading.Thread(target=listen, daemon=True).start()
        return lambda: typed_by_symbols(symbols)

    def report(self, kickstart: str, alias: str | None) -> None:
        found = re.search(r"http://[^\s'\"/]+/report/[A-Za-z0-9_-]+", kickstart)
        if not found:
            return
        url = found[0].replace(alias, "127.0.0.1") if alias else found[0]
        for stage in ("started", "partitioning", "packages", "done"):
            requests.post(f"{url}/{stage}", timeout=20).raise_for_status()

    def serve(self, key: str) -> None:
        host_key = paramiko.ECDSAKey.generate()
        address = (self.described["ssh_host"], int(self.described["ssh_port"]))
        with socket.create_server(address) as listening:
            while True:
                client, _ = listening.accept()
                transport = paramiko.Transport(client)
                transport.add_server_key(host_key)
                with contextlib.suppress(paramiko.SSHException, EOFError):
                    transport.start_server(server=Login(key))

    def execute(self, channel: paramiko.Channel, command: str) -> None:
        if "poweroff" in command:
            self.power_off(channel)
        with (self.home / "commands.log").open("a") as log:
            log.write(command + "\n")
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=self.home,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        pumps = [
            threading.Thread(target=_pump, args=(process.stdout, channel.sendall)),
            threading.Thread(target=_pump, args=(process.stderr, channel.sendall_stderr)),
        ]
        threading.Thread(target=_feed, args=(channel, process), daemon=True).start()
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        channel.send_exit_status(process.wait())
        channel.close()

    def power_off(self, channel: paramiko.Channel) -> None:
        """Leaves the mark of a finished installation on the disk, and ends."""
        write = ["qemu-io", "-f", self.described["disk_format"], "-c", f"write -P {MARK} 1M 64k"]
        subprocess.run([*write, self.described["disk"]], check=True, stdout=subprocess.DEVNULL)
        channel.send_exit_status(0)
        channel.close()
        time.sleep(0.3)
        os._exit(0)


def _greet(client: socket.socket, stream: io.BufferedReader) -> None:
    client.sendall(b"RFB 003.008\n")
    _exactly(stream, 12)
    client.sendall(bytes([2, 2, 1]))  # passwords, or nothing
    if _exactly(stream, 1) == b"\x02":
        client.sendall(bytes(16))
        _exactly(stream, 16)  # whatever it is
    client.sendall(struct.pack(">I", 0))
    _exactly(stream, 1)
    pixel = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
    name = b"stand-in"
    client.sendall(struct.pack(">HH", 8, 4) + pixel + struct.pack(">I", len(name)) + name)


def _take_message(stream: io.BufferedReader, symbols: list[int]) -> bool:
    """Takes what a client says; whether it asks for a picture."""
    lengths = {0: 19, 3: 9, 5: 5}  # of what follows the type, for types that carry nothing of use
    kind = _exactly(stream, 1)[0]
    if kind == 4:
        is_down, symbol = struct.unpack(">B2xI", _exactly(stream, 7))
        if is_down:
            symbols.append(symbol)
    elif kind == 2:
        _exactly(stream, 4 * struct.unpack(">xH", _exactly(stream, 3))[0])
    else:
        _exactly(stream, lengths[kind])
    return kind == 3


def _exactly(stream: io.BufferedReader, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _pump(source: Any, send: Any) -> None:
    while data := source.read1(65536):
        send(data)


def _feed(channel: paramiko.Channel, process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    with contextlib.suppress(BrokenPipeError), process.stdin as stream:
        while data := channel.recv(65536):
            stream.write(data)
            stream.flush()


def main() -> None:
    """Entry point: `python -m tests.hypervisors.guest DESCRIPTION`."""
    Guest.current = Guest(json.loads(Path(sys.argv[1]).read_text()))
    Guest.current.live()


if __name__ == "__main__":
    main()
