"""What happened to each order, in a file: it outlives the process, and a replacement reads on where it stopped."""

import sqlite3
from collections.abc import Callable, Iterator
from functools import cached_property

PENDING = "payment pending"

SCHEMA = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY, order_id TEXT, event TEXT, total REAL);
    CREATE INDEX IF NOT EXISTS events_of_order ON events (order_id);
"""


class Journal:
    """Events of orders, numbered in the order they happened.

    :param file: gives the file's name; asked when the journal is first used.
    """

    def __init__(self, file: Callable[[], str]) -> None:
        self._file = file

    @cached_property
    def _db(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._file(), isolation_level=None)
        db.executescript(SCHEMA)
        return db

    def append(self, order: str, event: str, total: float) -> None:
        """Write down that ``event`` happened to ``order``."""
        self._db.execute(
            "INSERT INTO events (order_id, event, total) VALUES (?, ?, ?)", (order, event, total)
        )

    def after(self, number: int, order: str) -> Iterator[tuple[int, str]]:
        """The order's events that came after event ``number``."""
        return self._db.execute(
            "SELECT number, event FROM events WHERE order_id = ? AND number > ? ORDER BY number",
            (order, number),
        )

    def pending(self) -> list[tuple[str, float]]:
        """The orders whose payment is still to be made, the oldest first."""
        return self._db.execute(
            "SELECT order_id, total FROM events AS last WHERE event = ? AND NOT EXISTS"
            " (SELECT 1 FROM events WHERE order_id = last.order_id AND number > last.number) ORDER BY number",
            (PENDING,),
        ).fetchall()
