"""What the server remembers: the state of each host and build, their history and last log lines.

One SQLite file, shared by the server's processes and the `goldimg host` commands, and safe against
any of them being killed. A state changes in one transaction, which also checks that it may.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from goldimg.errors import GoldimgError
from goldimg.project import make_directory

LINES = 2000  # of log that are kept for a host or build
EVENTS = 1000  # of history
LONGEST = 500  # characters of a log line


class State(StrEnum):
    """How far a host is. Only an armed or booting one is installed when it asks for it."""

    KNOWN = "known"
    ARMED = "armed"
    BOOTING = "booting"
    FETCHED = "kickstart fetched"
    INSTALLING = "installing"
    INSTALLED = "installed"
    FAILED = "failed"


WAITING = (State.ARMED, State.BOOTING)  # nothing of the install has happened yet
UNDER_WAY = (State.FETCHED, State.INSTALLING)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a host. Times are seconds since the epoch, 0 where there is none.

    `armed` is the time of its last arming: tokens are for that one and no other.
    """

    name: str
    state: State = State.KNOWN
    since: float = 0
    build: str = ""
    os: str = ""
    armed: float = 0
    expires: float = 0
    fetched: float = 0
    stage: str = ""
    message: str = ""
    address: str = ""
    root_hash: str | None = field(default=None, repr=False)

    def is_waiting(self, now: float) -> bool:
        """Whether the install may begin: armed, not yet begun, not expired."""
        return self.state in WAITING and now < self.expires


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


_SCHEMA = """
CREATE TABLE IF NOT EXISTS host (
    name TEXT PRIMARY KEY, state TEXT NOT NULL, since REAL NOT NULL,
    build TEXT NOT NULL, os TEXT NOT NULL, armed REAL NOT NULL,
    expires REAL NOT NULL, fetched REAL NOT NULL, stage TEXT NOT NULL, message TEXT NOT NULL,
    address TEXT NOT NULL, root_hash TEXT);
CREATE TABLE IF NOT EXISTS build (
    name TEXT PRIMARY KEY, state TEXT NOT NULL, since REAL NOT NULL, started REAL NOT NULL,
    text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS history (
    id INTEGER PRIMARY KEY, subject TEXT NOT NULL, time REAL NOT NULL, state TEXT NOT NULL,
    text TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS history_of ON history (subject, id);
CREATE TABLE IF NOT EXISTS line (
    id INTEGER PRIMARY KEY, subject TEXT NOT NULL, time REAL NOT NULL, text TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS line_of ON line (subject, id);
CREATE TABLE IF NOT EXISTS iso (os TEXT PRIMARY KEY, path TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS used (token TEXT PRIMARY KEY, first REAL NOT NULL);
"""
_VERSION = 1


class Store:
    """The file `path`, made with mode 0600 where it is not there. Safe to share between threads.

    Raises GoldimgError where the file cannot be used, or was written by a later goldimg.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.clock = clock
        self._local = threading.local()
        make_directory(path.parent)
        # Readable by its owner only, from the first byte on: it holds password hashes.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        try:
            version = self._connection().execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise GoldimgError(f"{path} was written by a later version of goldimg")
            self._connection().executescript(_SCHEMA)
            self._connection().execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.Error as error:
            raise GoldimgError(
                f"{path} cannot be used: {error}",
                hint="check owner and space; moving it away forgets the hosts' states",
            ) from None

    def _connection(self) -> sqlite3.Connection:
        # One for each thread and process: SQLite's must not cross a fork.
        held: tuple[int, sqlite3.Connection] | None = getattr(self._local, "held", None)
        if held is None or held[0] != os.getpid():
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            held = (os.getpid(), connection)
            self._local.held = held
        return held[1]

    def close(self) -> None:
        """Closes this thread's connection."""
        held = getattr(self._local, "held", None)
        if held is not None:
            held[1].close()
            self._local.held = None

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def version(self) -> int:
        """A number that changes whenever another process or thread has changed something."""
        return int(self._connection().execute("PRAGMA data_version").fetchone()[0])

    # --- hosts -------------------------------------------------------------------------------

    def host(self, name: str) -> Record:
        """What is known of a host; a host never armed is just known."""
        row = self._connection().execute("SELECT * FROM host WHERE name = ?", (name,)).fetchone()
        return _record(row) if row else Record(name=name)

    def hosts(self) -> dict[str, Record]:
        """Every host that has been armed once."""
        rows = self._connection().execute("SELECT * FROM host ORDER BY name").fetchall()
        return {row["name"]: _record(row) for row in rows}

    def arm(
        self, name: str, *, build: str, os_name: str, root_hash: str | None, expires: float
    ) -> Record:
        """From now on the host is installed, once, until `expires`. Its earlier tokens are void."""
        now = self.clock()
        with self._changing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO host VALUES (?,?,?,?,?,?,?,0,'','','',?)",
                (name, State.ARMED, now, build, os_name, now, expires, root_hash),
            )
            connection.execute("DELETE FROM line WHERE subject = ?", (name,))
            _note(connection, now, name, State.ARMED, f"for {os_name}")
        return self.host(name)

    def disarm(self, name: str, text: str = "cancelled") -> Record:
        """The host is not installed, whatever it asks for; an install under way is not heard."""
        return self._move(name, (*WAITING, *UNDER_WAY), State.KNOWN, text, root_hash=None)

    def forget(self, name: str) -> None:
        """Nothing is known of the host any more."""
        with self._changing() as connection:
            for table, column in (("host", "name"), ("history", "subject"), ("line", "subject")):
                connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))  # noqa: S608

    def booting(self, name: str, address: str) -> Record:
        """The host was told to start the installer; only an armed one moves on."""
        return self._move(name, (State.ARMED,), State.BOOTING, f"from {address}", address=address)

    def fetched(self, name: str, address: str) -> Record:
        """The host has its kickstart; its window of fetching it again begins."""
        return self._move(
            name, WAITING, State.FETCHED, f"by {address}", address=address, fetched=self.clock()
        )

    def stage(self, name: str, stage: str, message: str = "") -> Record:
        """The installer reports a stage; `done` and `failed` end the install and its secrets.

        A report for an install that has ended, or was cancelled, does not revive it.
        """
        open_states = (*WAITING, *UNDER_WAY)
        first = message.partition("\n")[0][:LONGEST]
        if stage == "failed":
            text = f"failed: {first}" if first else stage
            return self._move(
                name, open_states, State.FAILED, text, stage=stage, message=first, root_hash=None
            )
        if stage == "done":
            return self._move(
                name, open_states, State.INSTALLED, stage, stage=stage, root_hash=None
            )
        return self._move(name, open_states, State.INSTALLING, stage, stage=stage)

    def expire(self) -> list[str]:
        """Disarms every host whose time has run out before it began; returns their names."""
        now = self.clock()
        late = [
            it.name for it in self.hosts().values() if it.state in WAITING and it.expires <= now
        ]
        for name in late:
            self._move(name, WAITING, State.KNOWN, "expired before it began", root_hash=None)
        return late

    def _move(
        self, name: str, only: tuple[State, ...], state: State, text: str, **values: object
    ) -> Record:
        """Changes the state where it is one of `only`, seen and changed in one transaction."""
        now = self.clock()
        with self._changing() as connection:
            before = self.host(name)
            if not before.armed or before.state not in only:
                return before
            changes = dict(values, state=state)
            if state is not before.state:
                changes["since"] = now
            assignments = ", ".join(f"{key} = ?" for key in changes)
            connection.execute(
                f"UPDATE host SET {assignments} WHERE name = ?",  # noqa: S608 - keys are our own
                (*changes.values(), name),
            )
            _note(connection, now, name, state, text)
        return self.host(name)

    def set_iso(self, os_name: str, path: Path) -> None:
        """From now on the files of `os_name` come out of this ISO."""
        with self._changing() as connection:
            connection.execute("INSERT OR REPLACE INTO iso VALUES (?,?)", (os_name, str(path)))

    def isos(self) -> dict[str, Path]:
        """The ISO of each OS that machines may load."""
        rows = self._connection().execute("SELECT * FROM iso ORDER BY os").fetchall()
        return {row["os"]: Path(row["path"]) for row in rows}

    # --- builds ------------------------------------------------------------------------------

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
                _note(connection, now, name, state, text)

    def builds(self) -> list[BuildRecord]:
        """The builds that were recorded, the latest first."""
        rows = self._connection().execute("SELECT * FROM build ORDER BY started DESC, name")
        return [BuildRecord(**dict(row)) for row in rows]

    # --- history and log ---------------------------------------------------------------------

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


def _record(row: sqlite3.Row) -> Record:
    values = dict(row)
    return Record(**{**values, "state": State(values["state"])})


def _note(connection: sqlite3.Connection, now: float, subject: str, state: str, text: str) -> None:
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
