"""Answers one request of an EC2 instance for its metadata: QEMU starts it for each connection.

`python imds.py DIRECTORY` reads a request from its standard input. It is run by its path, alone,
with the standard library only, so that it starts quickly. Version 2 of the service: without a
session's token nothing is told.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
"""

import sys
from pathlib import Path

TOKEN = "goldimg-trial-token"  # noqa: S105 - of a machine that lives for minutes, and no secret
ASKED_BY = "x-aws-ec2-metadata-token"


def answer(root: Path, head: str) -> tuple[int, bytes]:
    """Status and body for a request's first line and headers. Any API version is as the latest."""
    first, _, rest = head.partition("\r\n")
    method, _, target = first.partition(" ")
    path = target.partition(" ")[0].partition("?")[0]
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in rest.split("\r\n"))
    }
    if (method, path) == ("PUT", "/latest/api/token"):
        return 200, TOKEN.encode()
    if method != "GET":
        return 405, b""
    if headers.get(ASKED_BY) != TOKEN:
        return 401, b""
    parts = [part for part in path.split("/") if part]
    if ".." in parts:
        return 404, b""
    place = root.joinpath(*parts[1:])
    if place.is_file():
        return 200, place.read_bytes()
    if place.is_dir() and len(parts) > 1:
        return 200, listing(place).encode()
    return 404, b""


def listing(directory: Path) -> str:
    """A directory's entries as the service lists them: a key by its number and name."""
    if directory.name == "public-keys":
        return "\n".join(f"{it.name}=trial" for it in sorted(directory.iterdir()))
    return "\n".join(
        it.name + "/" * it.is_dir() for it in sorted(directory.iterdir(), key=lambda it: it.name)
    )


def main() -> None:
    """Reads a request, writes the answer, ends: the connection is closed by that."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = sys.stdin.buffer.raw.read(65536)  # type: ignore[union-attr] # what is there
        if not data:
            return
        head += data
    status, body = answer(Path(sys.argv[1]), head.partition(b"\r\n\r\n")[0].decode("latin-1"))
    lines = [f"HTTP/1.1 {status} goldimg", "Content-Type: text/plain", "Connection: close"]
    if head.startswith(b"PUT"):
        lines.append("X-aws-ec2-metadata-token-ttl-seconds: 21600")
    lines += [f"Content-Length: {len(body)}", "", ""]
    sys.stdout.buffer.write("\r\n".join(lines).encode() + body)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
