"""The key-value store: pure, with Consul's indexes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

MAX_VALUE = 512 * 1024
"""Bytes in one value, as ``kv_max_value_size`` is by default."""

_TOMBSTONE_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One key; ``create_index`` and ``modify_index`` are the writes that made and last changed it."""

    key: str
    value: bytes
    flags: int
    create_index: int
    modify_index: int


@dataclass(frozen=True, slots=True)
class _Tombstone:
    index: int
    at: float


class KeyValueStore:
    """Entries by key. Every write is given the index it has, and says whether it was done.

    The index of a prefix comes from the keys below it, deleted ones included, so that a deletion
    wakes who watches; where there never was one it is the whole store's.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._tombstones: dict[str, _Tombstone] = {}
        self._index = 0

    # Reading

    def get(self, key: str) -> Entry | None:
        """The entry of ``key``."""
        return self._entries.get(key)

    def under(self, prefix: str) -> list[Entry]:
        """All entries whose key begins with ``prefix``, by key."""
        return [self._entries[key] for key in sorted(self._entries) if key.startswith(prefix)]

    def keys(self, prefix: str, separator: str = "") -> list[str]:
        """Keys that begin with ``prefix``, each cut behind the first ``separator`` that follows it."""
        return list(dict.fromkeys(self._cut(prefix, separator)))

    def _cut(self, prefix: str, separator: str) -> Iterator[str]:
        for entry in self.under(prefix):
            at = entry.key.find(separator, len(prefix)) if separator else -1
            yield entry.key if at < 0 else entry.key[: at + len(separator)]

    def key_index(self, key: str) -> int:
        """What a query of one key reports as its index."""
        entry = self._entries.get(key)
        return entry.modify_index if entry else max(1, self._index)

    def prefix_index(self, prefix: str) -> int:
        """What a query of a prefix reports as its index."""
        if not prefix:
            return max(1, self._index)
        live = (entry.modify_index for key, entry in self._entries.items() if key.startswith(prefix))
        dead = (stone.index for key, stone in self._tombstones.items() if key.startswith(prefix))
        return max((*live, *dead), default=0) or max(1, self._index)

    # Writing

    def put(self, key: str, value: bytes, index: int, *, flags: int = 0, cas: int | None = None) -> bool:
        """Set a key.

        :param cas: only if its modify index is this; 0: only if there is no such key.
        """
        old = self._entries.get(key)
        if cas is not None and cas != (old.modify_index if old else 0):
            return False
        if old and (old.value, old.flags) == (value, flags):
            return True  # the same again: no index moves and nobody wakes
        if old:
            self._entries[key] = replace(old, value=value, flags=flags, modify_index=index)
        else:
            self._entries[key] = Entry(key, value, flags, index, index)
        self._index = index
        return True

    def delete(self, key: str, index: int, now: float, *, cas: int | None = None) -> bool:
        """Remove a key; removing what is not there succeeds.

        :param cas: only if its modify index is this.
        """
        old = self._entries.get(key)
        if old is None:
            return True
        if cas is not None and cas != old.modify_index:
            return False
        self._bury([key], index, now)
        return True

    def delete_under(self, prefix: str, index: int, now: float) -> None:
        """Remove every key that begins with ``prefix``."""
        self._bury([entry.key for entry in self.under(prefix)], index, now)

    def _bury(self, keys: list[str], index: int, now: float) -> None:
        for key in keys:
            del self._entries[key]
            self._tombstones[key] = _Tombstone(index, now)
        if keys:
            self._index = index
        expired = [key for key, stone in self._tombstones.items() if now - stone.at > _TOMBSTONE_SECONDS]
        for key in expired:
            del self._tombstones[key]

    # Transactions

    def snapshot(self) -> tuple[dict[str, Entry], dict[str, _Tombstone], int]:
        """All state as it is now, for :meth:`restore`."""
        return dict(self._entries), dict(self._tombstones), self._index

    def restore(self, snapshot: tuple[dict[str, Entry], dict[str, _Tombstone], int]) -> None:
        """Be again as at ``snapshot``, which must not be used twice."""
        self._entries, self._tombstones, self._index = snapshot
