"""The SQLite file of what the server remembers, and its tables.

It is shared by the server's processes and the `goldimg host` commands, and safe against any of them
being killed: what changes, changes in one transaction.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from goldimg.errors import GoldimgError
from goldimg.project import make_directory

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
CREATE TABLE IF NOT EXISTS place (
    build TEXT PRIMARY KEY, picture TEXT NOT NULL, directory TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS used (token TEXT PRIMARY KEY, first REAL NOT NULL);
"""
_VERSION = 1


class Database:
    """The file `path`, made with mode 0600 where it is not there. Safe to share between threads.

    Raises GoldimgError where the file cannot be used, or was written by a later goldimg.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.clock = clock
        self._local = threading.local()
        self._resting: list[tuple[int, sqlite3.Connection]] = []
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
        while held is None or held[0] != os.getpid():
            try:
                held = self._resting.pop()
            except IndexError:
                held = (os.getpid(), self._connect())
        self._local.held = held
        return held[1]

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=30, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -128")  # KiB: there may be a hundred of them
        return connection

    def rest(self) -> None:
        """Lets another thread have this one's connection.

        A server has hundreds of threads, and a connection takes 100 KB.
        """
        held = getattr(self._local, "held", None)
        if held is not None:
            self._local.held = None
            self._resting.append(held)

    def close(self) -> None:
        """Closes this thread's connection, and those that rest."""
        self.rest()
        while self._resting:
            self._resting.pop()[1].close()

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
