"""Plain HTTP to one known host: what adapters use to reach the systems they speak to.

No discovery, no balancing, no retry: the way to a registry, a secret store or a collector must not
depend on what those are needed for.
"""

from chassis.wire._plain import plain_client, ssl_context

__all__ = ["plain_client", "ssl_context"]
