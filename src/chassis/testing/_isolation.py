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
    known = registry.items()
    with registry.isolated():
        try:
            yield registry
        finally:
            for _, policy in known:
                reset = getattr(policy, "reset", None)
                if reset is not None:
                    reset()
