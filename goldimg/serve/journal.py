"""What happened to hosts and builds, the last lines of their logs, and the ISOs they load."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from goldimg.serve.database import Database

LINES = 2000  # of log that are kept for a host or build
EVENTS = 1000  # of history
LONGEST = 500  # characters of a log line


@dataclass(frozen=True, kw_only=True)
class Happening:
    """One line of a host's or build's history."""

    id: int
    time: float
    subject: str
    state: str
    text: str


@dataclass(frozen=True, kw_only=True)
class BuildRecord:
    """A build of `goldimg build` as the status page shows it."""

    name: str
    state: str
    since: float
    started: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a build's files are: the last picture of its screen, and its artifacts.

    After a failure the last picture is in `directory` too, as `failure.png`.
    """

    picture: Path
    directory: Path


class Journal(Database):
    """What is only ever added to, or replaced."""

    def build(self, name: str, state: str, text: str) -> None:
        """A build has reached `state`; `queued` begins it anew."""
        now = self.clock()
        with self._changing() as connection:
            row = connection.execute("SELECT * FROM build WHERE name = ?", (name,)).fetchone()
            is_new = row is None or state == "queued"
            started = now if is_new else row["started"]
            since = now if is_new or row["state"] != state else row["since"]
            connection.execute(
                "INSERT OR REPLACE INTO build VALUES (?,?,?,?,?)",
                (name, state, since, started, text[:LONGEST]),
            )
            if is_new or row["state"] != state:
                note(connection, now, name, state, text)

    def builds(self) -> list[BuildRecord]:
        """The builds that were recorded, the latest first."""
        rows = self._connection().execute("SELECT * FROM build ORDER BY started DESC, name")
        return [BuildRecord(**dict(row)) for row in rows]

    def set_place(self, build: str, place: Place) -> None:
        """From now on the build's picture and artifacts are looked for there."""
        with self._changing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO place VALUES (?,?,?)",
                (build, str(place.picture), str(place.directory)),
            )

    def place(self, build: str) -> Place | None:
        """Where a build's files are; None where it has not said so."""
        row = self._connection().execute("SELECT * FROM place WHERE build = ?", (build,)).fetchone()
        if row is None:
            return None
        return Place(picture=Path(row["picture"]), directory=Path(row["directory"]))

    def set_iso(self, os_name: str, path: Path) -> None:
        """From now on the files of `os_name` come out of this ISO."""
        with self._changing() as connection:
            connection.execute("INSERT OR REPLACE INTO iso VALUES (?,?)", (os_name, str(path)))

    def isos(self) -> dict[str, Path]:
        """The ISO of each OS that machines may load."""
        rows = self._connection().execute("SELECT * FROM iso ORDER BY os").fetchall()
        return {row["os"]: Path(row["path"]) for row in rows}

    def history(self, subject: str = "", limit: int = 200) -> list[Happening]:
        """What happened to a host or build (to all, for an empty name), the latest last."""
        where, values = ("WHERE subject = ?", [subject]) if subject else ("", [])
        rows = self._connection().execute(
            f"SELECT * FROM history {where} ORDER BY id DESC LIMIT ?",  # noqa: S608
            (*values, limit),
        )
        return [Happening(**dict(row)) for row in rows][::-1]

    def happened_after(self, last: int) -> list[Happening]:
        """What happened to anything after the happening with this id."""
        rows = self._connection().execute("SELECT * FROM history WHERE id > ? ORDER BY id", (last,))
        return [Happening(**dict(row)) for row in rows]

    def log(self, subject: str, lines: Iterable[str]) -> None:
        """Keeps lines of a host's or build's log; only the last 2,000 are kept."""
        now = self.clock()
        rows = [(subject, now, text[:LONGEST]) for text in lines if text.strip()]
        if not rows:
            return
        with self._changing() as connection:
            connection.executemany("INSERT INTO line (subject, time, text) VALUES (?,?,?)", rows)
            _prune(connection, "line", subject, LINES)

    def lines(self, subject: str, limit: int = 40) -> list[str]:
        """The last lines of a host's or build's log."""
        rows = self._connection().execute(
            "SELECT text FROM line WHERE subject = ? ORDER BY id DESC LIMIT ?", (subject, limit)
        )
        return [row["text"] for row in rows][::-1]

    def first_use(self, token: str) -> float:
        """When the token (its digest) was used for the first time: now, where it was not yet."""
        now = self.clock()
        with self._changing() as connection:
            connection.execute("INSERT OR IGNORE INTO used VALUES (?, ?)", (token, now))
            row = connection.execute("SELECT first FROM used WHERE token = ?", (token,)).fetchone()
            connection.execute("DELETE FROM used WHERE first < ?", (now - 30 * 86_400,))
        return float(row["first"])


def note(connection: sqlite3.Connection, now: float, subject: str, state: str, text: str) -> None:
    """Adds a line to a history, in the transaction of what it tells of."""
    connection.execute(
        "INSERT INTO history (subject, time, state, text) VALUES (?,?,?,?)",
        (subject, now, str(state), text[:LONGEST]),
    )
    _prune(connection, "history", subject, EVENTS)


def _prune(connection: sqlite3.Connection, table: str, subject: str, keep: int) -> None:
    row = connection.execute(
        f"SELECT id FROM {table} WHERE subject = ? ORDER BY id DESC LIMIT 1 OFFSET ?",  # noqa: S608
        (subject, keep),
    ).fetchone()
    if row:
        connection.execute(
            f"DELETE FROM {table} WHERE subject = ? AND id <= ?",  # noqa: S608
            (subject, row["id"]),
        )
