"""The state of each host, which changes only where it may.

Only an armed host is installed; what has begun is not begun again, and what has ended stays so.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from enum import StrEnum

from goldimg.serve.journal import LONGEST, Journal, note


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


class Store(Journal):
    """Hosts, and all that a Journal keeps."""

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
            note(connection, now, name, State.ARMED, f"for {os_name}")
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
        # Looked at without a lock first: most calls change nothing, such as a second fetch.
        before = self.host(name)
        if not before.armed or before.state not in only:
            return before
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
            note(connection, now, name, state, text)
        return self.host(name)


def _record(row: sqlite3.Row) -> Record:
    values = dict(row)
    return Record(**{**values, "state": State(values["state"])})
