"""Saves a running guest into a file, from which later guests go on: Packer runs this at the end.

Booting is most of what a layer costs under emulation. The state belongs to the disk as it is at
this moment, to the same QEMU version and to the same virtual hardware. It holds the guest's memory,
so it is as secret as the base disk: mode 0600.

QEMU's side: https://www.qemu.org/docs/master/devel/migration/main.html
"""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from pathlib import Path

from goldimg.errors import GoldimgError
from goldimg.run import Runner

LIMIT = 300.0  # seconds
UNLIMITED = 1 << 40  # bytes a second


async def save(socket: Path, state: Path) -> None:
    """Migrates the guest behind the QMP `socket` into `state`; it stays paused. GoldimgError."""
    from qemu.qmp import QMPClient

    client = QMPClient("goldimg")
    await client.connect(str(socket))
    try:
        await client.execute("migrate-set-parameters", {"max-bandwidth": UNLIMITED})
        command = f"exec:umask 077; zstd -q -1 > {shlex.quote(str(state))}"
        await client.execute("migrate", {"uri": command})
        end = time.monotonic() + LIMIT
        while True:
            said = await client.execute("query-migrate")
            status = said.get("status") if isinstance(said, dict) else None
            if status == "completed":
                return
            if status in ("failed", "cancelled") or time.monotonic() > end:
                raise GoldimgError(f"QEMU could not save the guest: {status}")
            await asyncio.sleep(0.1)
    finally:
        await client.disconnect()


def wait_until_whole(state: Path) -> None:
    """Waits for the compressor, which outlives the migration by a moment."""
    runner = Runner()
    for _ in range(50):
        if runner.run(["zstd", "-qt", state], check=False).code == 0:
            return
        time.sleep(0.1)
    raise GoldimgError(f"{state} is not whole")


def main() -> int:
    """Entry point: `python -m goldimg.packer.freeze SOCKET STATE`."""
    socket, state = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        asyncio.run(save(socket, state))
        wait_until_whole(state)
    except Exception as error:
        print(f"goldimg: the running guest was not saved: {error}", file=sys.stderr)
        print("goldimg: --var warm_layers=false builds without", file=sys.stderr)
        state.unlink(missing_ok=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
