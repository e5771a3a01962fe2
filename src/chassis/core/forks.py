"""What a forked child must make anew.

Another thread may hold a lock at the moment of a fork; in the child that thread does not exist,
and the lock would stay held for ever.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """Makes its locks anew in a forked child."""

    def after_fork_in_child(self) -> None:
        """Called in the child, right after the fork, while no other thread exists."""


_owners: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def tell_after_fork(owner: ForkAware) -> None:
    """Call ``owner.after_fork_in_child()`` in every forked child, for as long as ``owner`` lives."""
    _owners.add(owner)


def _after_fork_in_child() -> None:
    for owner in list(_owners):
        owner.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
