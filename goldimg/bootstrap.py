"""Sets a checkout up: Debian packages by apt, Python packages in .venv. `make` runs it.

Standard library only, since it runs before anything is installed: `python3 -m goldimg.bootstrap`.
What is there already is not installed again; a second run changes nothing and takes no second.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from goldimg.errors import GoldimgError, MissingTool
from goldimg.packages import BUILD_PACKAGES, TEST_PACKAGES, UNPRIVILEGED_PACKAGES
from goldimg.run import Runner, has_program

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "goldimg.stamp"
EXTRAS = {"build": "build,serve,test,vagrant", "test": "all,dev"}


def say(text: str) -> None:
    """Tells the user what is being done."""
    print(f"goldimg: {text}", file=sys.stderr, flush=True)


def wanted_packages(purpose: str) -> list[str]:
    """The Debian packages that `purpose` (build or test) needs, for this user."""
    packages = list(BUILD_PACKAGES)
    if os.geteuid() != 0:
        packages += UNPRIVILEGED_PACKAGES
    if purpose == "test":
        packages += TEST_PACKAGES
    return packages


def missing_packages(runner: Runner, packages: list[str]) -> list[str]:
    """Those of `packages` that dpkg does not know as installed."""
    query = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", *packages]
    known = runner.run(query, check=False).stdout.splitlines()
    installed = {line.split()[0] for line in known if line.endswith(" installed")}
    return [name for name in packages if name not in installed]


def install_packages(runner: Runner, purpose: str) -> None:
    """Installs what is missing; on a system without apt it only says what has to be there."""
    if not has_program("apt-get"):
        say("this is no Debian system: 'goldimg doctor' names the tools that are missing")
        return
    missing = missing_packages(runner, wanted_packages(purpose))
    if not missing:
        return
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    if prefix and not has_program("sudo"):
        raise MissingTool(
            "system packages are missing, and this is neither root nor is sudo installed",
            hint="as root: apt-get install " + " ".join(missing),
        )
    say("installing system packages: " + " ".join(missing))
    quiet = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]
    runner.run([*quiet, "update"], timeout=600)
    install = [*quiet, "install", "--no-install-recommends", *missing]

    def tell(line: str) -> None:
        words = line.split()
        if line.startswith("Setting up ") and words[2].split(":")[0] in missing:
            print(f"  {words[2].split(':')[0]}", file=sys.stderr, flush=True)

    runner.run(install, timeout=3600, on_line=tell)


def install_environment(runner: Runner, purpose: str) -> None:
    """Makes .venv and installs goldimg and its Python packages there, if that is not done yet."""
    has_dev = STAMP.exists() and "dev" in STAMP.read_text(encoding="ascii").split()[0]
    extras = EXTRAS["test" if has_dev else purpose]
    text = (ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode() + sys.version.encode()
    mark = f"{extras} {hashlib.sha256(text).hexdigest()}\n"
    if STAMP.exists() and STAMP.read_text(encoding="ascii") == mark:
        return
    say(f"installing Python packages into {VENV.relative_to(ROOT)} ({extras})")
    if not (VENV / "bin" / "pip").exists():
        runner.run([sys.executable, "-m", "venv", "--clear", VENV], timeout=300)
    install: list[str | Path] = [
        VENV / "bin" / "pip",
        "install",
        "--quiet",
        "--editable",
        f"{ROOT}[{extras}]",
    ]
    # where a site's pip has its own index, its settings must reach pip
    pip_settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    runner.run(install, timeout=1800, env=pip_settings)
    STAMP.write_text(mark, encoding="ascii")


def main() -> int:
    """Entry point: `python3 -m goldimg.bootstrap build|test`."""
    purpose = sys.argv[1] if len(sys.argv) > 1 else "build"
    if purpose not in EXTRAS:
        say(f"unknown purpose '{purpose}'; known: {', '.join(EXTRAS)}")
        return 2
    runner = Runner()
    try:
        install_packages(runner, purpose)
        install_environment(runner, purpose)
    except KeyboardInterrupt:
        say("interrupted; run it again to go on")
        return 130
    except GoldimgError as error:
        say(f"error: {error}")
        for line in error.details:
            say(f"  {line}")
        if error.hint:
            say(f"hint: {error.hint}")
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
