"""The index of a store: a SQLite file with each object's size and last use, and their sum.

It is shared by the processes of one machine, in WAL mode. A row is there before its file is, and
goes after it, so that a crash leaves rows without files, which age and go, never files without
rows. What cannot be used is thrown away and begun anew, `is_complete` being False until a walk
over the files has filled it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from kvloop.shared_cache.backends.directory.account import ObjectId

VERSION = 1
PENDING_S = 60.0
"""A row whose file was not written after so long has lost its writer."""
_KEY = 32
_WAIT_S = 0.25  # for another process's transaction
_SCHEMA = f"""
CREATE TABLE objects (
    name BLOB PRIMARY KEY, bytes INTEGER NOT NULL, used_at REAL NOT NULL, pending INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX by_use ON objects (used_at);
CREATE TABLE state (
    total INTEGER NOT NULL, is_complete INTEGER NOT NULL, walked_at REAL NOT NULL,
    walker TEXT NOT NULL, walker_until REAL NOT NULL
);
INSERT INTO state VALUES (0, 0, 0, '', 0);
CREATE TRIGGER added AFTER INSERT ON objects BEGIN
    UPDATE state SET total = total + NEW.bytes; END;
CREATE TRIGGER gone AFTER DELETE ON objects BEGIN
    UPDATE state SET total = total - OLD.bytes; END;
CREATE TRIGGER resized AFTER UPDATE OF bytes ON objects WHEN NEW.bytes != OLD.bytes BEGIN
    UPDATE state SET total = total + NEW.bytes - OLD.bytes; END;
PRAGMA user_version = {VERSION};
"""
_RESERVE = """
INSERT INTO objects VALUES (?, ?, ?, 1) ON CONFLICT (name) DO
UPDATE SET bytes = excluded.bytes, used_at = max(used_at, excluded.used_at), pending = 1
"""
_ADOPT = "INSERT OR IGNORE INTO objects VALUES (?, ?, ?, 0)"


class Row(NamedTuple):
    """One object as the index knows it."""

    object: ObjectId
    num_bytes: int
    used_at: float


class WalkDue(NamedTuple):
    """What the index says of walks over the files."""

    is_complete: bool
    walked_at: float
    walker_until: float
    """Until then another process walks, or walked when it died."""


class Index:
    """One connection; not thread-safe. Raises sqlite3.Error, whatever goes wrong."""

    def __init__(self, path: Path, *, is_made: bool) -> None:
        """Open the index; where there is none, make it if `is_made` says so, else raise."""
        _refuse_symlinks(path)
        mode = "rwc" if is_made else "rw"
        self._connection = sqlite3.connect(
            f"{path.as_uri()}?mode={mode}",
            uri=True,
            timeout=_WAIT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._prepare()
            self.inode = path.stat().st_ino
        except OSError as error:
            self._connection.close()
            raise sqlite3.OperationalError(str(error)) from error
        except BaseException:
            self._connection.close()
            raise
        self._path = path

    def is_in_place(self) -> bool:
        """False where the file was removed or replaced: others use another index by now."""
        try:
            return os.stat(self._path).st_ino == self.inode
        except OSError:
            return False

    def reserve(self, objects: Sequence[ObjectId], num_bytes: int, now: float) -> int:
        """Add rows, to be confirmed; returns the sum of all rows' bytes."""
        with self._transaction():
            rows = [(_name(o), num_bytes, now - i * 1e-6) for i, o in enumerate(objects)]
            self._connection.executemany(_RESERVE, rows)
            return self.total()

    def confirm(self, objects: Sequence[ObjectId]) -> None:
        """Their files are there."""
        with self._transaction():
            names = [(_name(o),) for o in objects]
            self._connection.executemany("UPDATE objects SET pending = 0 WHERE name = ?", names)

    def adopt(self, rows: Sequence[Row]) -> int:
        """Add rows of files that were found; a row that is there stays as it is. How many."""
        with self._transaction():
            values = [(_name(row.object), row.num_bytes, row.used_at) for row in rows]
            return self._connection.executemany(_ADOPT, values).rowcount

    def resize(self, rows: Sequence[Row]) -> None:
        """Correct the sizes."""
        with self._transaction():
            values = [(row.num_bytes, _name(row.object)) for row in rows]
            self._connection.executemany("UPDATE objects SET bytes = ? WHERE name = ?", values)

    def touch(self, used_at: Sequence[tuple[ObjectId, float]]) -> list[ObjectId]:
        """Set the times of use; returns the objects that have no row."""
        update = "UPDATE objects SET used_at = max(used_at, ?) WHERE name = ?"
        with self._transaction():
            return [
                item
                for item, when in used_at
                if not self._connection.execute(update, (when, _name(item))).rowcount
            ]

    def remove(self, objects: Sequence[ObjectId]) -> None:
        """Drop rows."""
        with self._transaction():
            names = [(_name(o),) for o in objects]
            self._connection.executemany("DELETE FROM objects WHERE name = ?", names)

    def remove_unused(self, rows: Sequence[Row]) -> int:
        """Drop rows that were not used since they were read. How many."""
        with self._transaction():
            names = [(_name(row.object), row.used_at) for row in rows]
            delete = "DELETE FROM objects WHERE name = ? AND used_at <= ?"
            return self._connection.executemany(delete, names).rowcount

    def remove_under(self, prefix: bytes) -> None:
        """Drop the rows of a namespace, or of a part of one."""
        with self._transaction():
            self._connection.execute(
                "DELETE FROM objects WHERE name >= ? AND name < ?", (prefix, _after(prefix))
            )

    def oldest(self, limit: int, now: float) -> list[Row]:
        """The rows that were not used for longest; not those whose files are being written."""
        select = """SELECT name, bytes, used_at FROM objects
            WHERE pending = 0 OR used_at < ? ORDER BY used_at LIMIT ?"""
        return self._rows(select, (now - PENDING_S, limit))

    def under(self, prefix: bytes) -> list[Row]:
        """The rows of a namespace, or of a part of one."""
        select = "SELECT name, bytes, used_at FROM objects WHERE name >= ? AND name < ?"
        return self._rows(select, (prefix, _after(prefix)))

    def first_from(self, prefix: bytes) -> ObjectId | None:
        """The first object, in their order, that is not before this prefix."""
        select = "SELECT name, bytes, used_at FROM objects WHERE name >= ? ORDER BY name LIMIT 1"
        rows = self._rows(select, (prefix,))
        return rows[0].object if rows else None

    def used_at(self, objects: Sequence[ObjectId]) -> dict[ObjectId, float]:
        """The times of last use of those that have rows."""
        select = "SELECT used_at FROM objects WHERE name = ?"
        found = ((o, self._connection.execute(select, (_name(o),)).fetchone()) for o in objects)
        return {item: row[0] for item, row in found if row}

    def total(self) -> int:
        """The sum of all rows' bytes."""
        (total,) = self._connection.execute("SELECT total FROM state").fetchone()
        return int(total)

    def walks(self) -> WalkDue:
        """When the files were last walked over."""
        select = "SELECT is_complete, walked_at, walker_until FROM state"
        is_complete, walked_at, walker_until = self._connection.execute(select).fetchone()
        return WalkDue(bool(is_complete), walked_at, walker_until)

    def take_walk(self, walker: str, now: float, for_s: float) -> bool:
        """Become the one process that walks, or stay it; False where another does."""
        update = """UPDATE state SET walker = ?, walker_until = ?
            WHERE walker = ? OR walker_until < ?"""
        with self._transaction():
            values = (walker, now + for_s, walker, now)
            return self._connection.execute(update, values).rowcount > 0

    def end_walk(self, now: float) -> None:
        """All files have been seen."""
        with self._transaction():
            self._connection.execute(
                "UPDATE state SET is_complete = 1, walked_at = ?, walker = '', walker_until = 0",
                (now,),
            )

    def checkpoint(self) -> None:
        """Move what was written from the log to the file, as far as nobody is in the way."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute("PRAGMA wal_autocheckpoint = 0")  # never on a writer's back
        with self._transaction():
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _statements(_SCHEMA):
                    self._connection.execute(statement)
            elif version != VERSION:
                raise sqlite3.DatabaseError(f"the index is of version {version}, not {VERSION}")
        self.total()

    def _rows(self, select: str, values: tuple[object, ...]) -> list[Row]:
        with closing(self._connection.execute(select, values)) as rows:
            return [Row(_object(name), size, used_at) for name, size, used_at in rows]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def remove_index(path: Path) -> None:
    """Remove the index, and what SQLite keeps beside it."""
    for name in _names(path):
        name.unlink(missing_ok=True)


def _names(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]


def _refuse_symlinks(path: Path) -> None:
    """SQLite would follow them out of the store."""
    for name in (path.parent, *_names(path)):
        if name.is_symlink():
            raise sqlite3.OperationalError(f"{name.name} is a symlink: not followed")


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _name(item: ObjectId) -> bytes:
    return item.namespace + item.key + item.group.to_bytes(2, "big")


def _object(name: bytes) -> ObjectId:
    group = int.from_bytes(name[2 * _KEY :], "big")
    return ObjectId(name[:_KEY], name[_KEY : 2 * _KEY], group)


def _after(prefix: bytes) -> bytes:
    """The first name that is behind all that begin so."""
    return prefix + b"\xff" * (2 * _KEY + 3 - len(prefix))
