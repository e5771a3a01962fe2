"""Transactions: several key-value operations that all happen or none does."""

from __future__ import annotations

from dataclasses import dataclass, replace

from chassis.devagent._kv import Entry, KeyValueStore

MAX_OPERATIONS = 64
WRITES = frozenset({"set", "cas", "delete", "delete-cas", "delete-tree"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation on one key; ``index`` is what cas and checks compare with."""

    verb: str
    key: str
    value: bytes = b""
    flags: int = 0
    index: int = 0


class OperationFailed(Exception):
    """An operation that makes its transaction fail, in Consul's words."""


def apply(
    store: KeyValueStore, operations: list[Operation], index: int, now: float
) -> tuple[list[Entry], list[tuple[int, str]]]:
    """Carry out ``operations`` in order; every failure undoes all of them.

    :returns: the entries read or written (a written one without its value), and the failures as
        pairs of position and text. One of the two is empty.
    """
    before = store.snapshot()
    results: list[Entry] = []
    failures: list[tuple[int, str]] = []
    for position, operation in enumerate(operations):
        try:
            results += _apply_one(store, operation, index, now)
        except OperationFailed as failure:
            failures.append((position, str(failure)))
    if failures:
        store.restore(before)
        return [], failures
    return results, []


def _apply_one(store: KeyValueStore, operation: Operation, index: int, now: float) -> list[Entry]:
    key = operation.key
    if not key and operation.verb not in ("delete-tree", "get-tree"):
        raise OperationFailed("Must provide key")
    match operation.verb:
        case "get":
            return [_existing(store, key, f'key "{key}" doesn\'t exist')]
        case "get-or-empty":
            return [store.get(key) or Entry(key, b"", 0, 0, 0)]
        case "get-tree":
            return store.under(key)
        case "set":
            store.put(key, operation.value, index, flags=operation.flags)
            return [_written(store, key)]
        case "cas":
            if not store.put(key, operation.value, index, flags=operation.flags, cas=operation.index):
                raise OperationFailed(f'failed to set key "{key}", index is stale')
            return [_written(store, key)]
        case "delete":
            store.delete(key, index, now)
        case "delete-cas":
            if not store.delete(key, index, now, cas=operation.index):
                raise OperationFailed(f'failed to delete key "{key}", index is stale')
        case "delete-tree":
            store.delete_under(key, index, now)
        case "check-index":
            entry = _existing(store, key, f'failed to check index, key "{key}" doesn\'t exist')
            if entry.modify_index != operation.index:
                found = f"current modify index {entry.modify_index} != {operation.index}"
                raise OperationFailed(f'failed index check for key "{key}", {found}')
            return [replace(entry, value=b"")]
        case "check-not-exists":
            if store.get(key):
                raise OperationFailed(f'key "{key}" exists')
        case verb:
            raise OperationFailed(f'unknown KV verb "{verb}"')
    return []


def _existing(store: KeyValueStore, key: str, otherwise: str) -> Entry:
    entry = store.get(key)
    if entry is None:
        raise OperationFailed(otherwise)
    return entry


def _written(store: KeyValueStore, key: str) -> Entry:
    return replace(_existing(store, key, "it was just written"), value=b"")
