"""What an image says of itself, asked in one go: a process costs a second under emulation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib import resources

from goldimg.errors import GoldimgError
from goldimg.run import Runner
from goldimg.testing.access import Door, offered, run

ASKING = 900.0  # seconds, in which cloud-init and all services have to be done, too


def script() -> str:
    """The shell script that asks; its argument is `machine` or `container`."""
    return resources.files("goldimg.testing").joinpath("facts.sh").read_text(encoding="utf-8")


def parsed(said: str) -> dict[str, str]:
    """The script's answers by name."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in said.splitlines():
        if line.startswith("@") and line[1:].replace("_", "").isalnum():
            name = line[1:]
            found[name] = []
        elif name:
            found[name].append(line)
    return {name: "\n".join(lines).strip() for name, lines in found.items()}


def ask(door: Door, runner: Runner) -> dict[str, str]:
    """The facts of a machine, and what its sshd offers to root and to the user."""
    with ThreadPoolExecutor(2, "ssh") as pool:
        users = {"offered_root": "root", "offered_user": door.user}
        said = {name: pool.submit(offered, door, runner, user) for name, user in users.items()}
        done = run(door, runner, "sudo -n sh -s machine", stdin=script(), seconds=ASKING)
        answers = {name: future.result() for name, future in said.items()}
    found = parsed(done.stdout)
    if "release" not in found:
        said_instead = (done.stderr or done.stdout).strip().splitlines()
        raise GoldimgError("the machine answers no questions", details=said_instead[-4:])
    return {**found, **answers}
