"""Each contract test runs against a real Consul agent and against the development agent.

Both are processes of their own with real sockets. ``agent`` is the shared one of each kind.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.agents import Agent
from tests.support.processes import ManagedProcess

DEVELOPMENT = "from chassis.devagent import run; run(port=0)"


@pytest.fixture(scope="session")
def dev_agent_url() -> Iterator[str]:
    with ManagedProcess.python("-c", DEVELOPMENT, name="chassis-dev") as process:
        yield process.wait_for_json("address")["address"]


@pytest.fixture(params=[pytest.param("consul", marks=pytest.mark.integration), "chassis-dev"])
def agent(request: pytest.FixtureRequest) -> Iterator[Agent]:
    if request.param == "consul":
        server = request.getfixturevalue("consul_server")
        agent = Agent(server.url, server.version)
    else:
        agent = Agent(request.getfixturevalue("dev_agent_url"), None)
    try:
        yield agent
    finally:
        agent.close()
