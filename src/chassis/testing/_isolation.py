from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chassis.core import PolicyRegistry, policies


@contextmanager
def isolated_policies(registry: PolicyRegistry = policies) -> Iterator[PolicyRegistry]:
    """Undo at the end of the block what it did to the registry of named policies.

    Inside, policies made before are known as ever. Afterwards the names given inside are free
    again, though their policies may live on; overrides are what they were before; and the policies
    of before that can be reset (breakers) have forgotten what they counted.

    :param registry: default: the registry of the process.
    """
    # The registry's own state, which nothing but a test has a reason to turn back.
    with registry._lock:
        known, overrides = dict(registry._policies), dict(registry._overrides)
    try:
        yield registry
    finally:
        with registry._lock:
            registry.override(overrides)
            registry._policies.clear()
            registry._policies.update(known)
        for policy in known.values():
            reset = getattr(policy, "reset", None)
            if reset is not None:
                reset()
