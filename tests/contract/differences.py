"""Where the releases of Consul differ in what the contract looks at.

The contract is what a current Consul does; a difference names what an older one does instead. "Before"
was measured on 1.8.7, "after" and the release are from Consul's source and pull requests. The
development agent is held to "after".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One answer that changed.

    :param since: the first release that answers as ``after``.
    :param source: the pull request or advisory that changed it.
    """

    what: str
    before: Any
    after: Any
    since: tuple[int, int, int]
    source: str


HEARTBEAT_FOR_UNKNOWN_CHECK = Difference(
    what="the status of a heartbeat for a check the agent does not know",
    before=500,
    after=404,
    since=(1, 11, 0),
    source="hashicorp/consul#10632",
)
DEREGISTERING_TWICE = Difference(
    what="the status of deregistering an instance the agent does not know",
    before=200,
    after=404,
    since=(1, 11, 0),
    source="hashicorp/consul#10632",
)
UNRELATED_WRITE_WAKES_MISSING_KEY = Difference(
    what="whether a query of a key that does not exist returns when another key is written",
    before=True,
    after=False,
    since=(1, 12, 0),
    source="hashicorp/consul#12110",
)
UNRELATED_LEAVING_WAKES_MISSING_SERVICE = Difference(
    what="whether a query of a service without instances returns when another service loses its last one",
    before=True,
    after=False,
    since=(1, 10, 0),
    source="the streaming backend, on by default since 1.10",
)
KEY_WITH_SPACE_AT_ITS_BEGINNING = Difference(
    what="whether a key that begins with a space is taken",
    before=True,
    after=False,
    since=(1, 21, 5),
    source="hashicorp/consul#22682 and #22850 (CVE-2025-11392)",
)
GET_OR_EMPTY = Difference(
    what="the status of a transaction with the verb get-or-empty on a key that does not exist",
    before=409,
    after=200,
    since=(1, 13, 0),
    source="hashicorp/consul, agent/structs/txn.go",
)
DATACENTER_IN_AGENT_SERVICES = Difference(
    what="whether /v1/agent/services names the datacenter",
    before=False,
    after=True,
    since=(1, 10, 0),
    source="hashicorp/consul, api.AgentService",
)
