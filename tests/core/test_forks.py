"""Locks in a forked child."""

from __future__ import annotations

import os
import signal
import threading
import warnings

from chassis.core.events import EventBus
from chassis.core.forks import tell_after_fork
from chassis.core.registry import PolicyRegistry


class Owner:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        tell_after_fork(self)

    def after_fork_in_child(self) -> None:
        self.lock = threading.Lock()


def test_trap_39_lock_held_by_another_thread_is_free_in_the_child() -> None:
    """A child forked while another thread holds the lock can take it; the parent's stays held."""
    owner = Owner()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with owner.lock:
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of just this
        child = os.fork()
    if child == 0:
        os._exit(0 if owner.lock.acquire(timeout=5) else 1)
    try:
        assert os.waitpid(child, 0)[1] == 0
        assert not owner.lock.acquire(blocking=False)
    finally:
        done.set()
        thread.join(10)


def test_trap_39_the_bus_and_the_registry_work_in_a_child() -> None:
    """Whoever subscribed or registered in another thread at the moment of the fork left no lock behind."""
    bus, registry = EventBus(), PolicyRegistry()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with bus._lock, registry._lock:
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of just this
        child = os.fork()
    if child == 0:
        signal.alarm(5)
        bus.subscribe(lambda event: None)
        registry.override({})
        os._exit(0)
    try:
        assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
        thread.join(10)
