"""A Consul agent in memory: registry, health checks and key-value store for one machine.

It speaks Consul's HTTP API, so everything that works with it works with a real agent: a contract
suite (tests/contract) is first seen passing on a real Consul and then on this. What it lacks it
answers with 501 and a sentence, never with a body that looks like an answer.

::

    chassis dev                      # http://127.0.0.1:8500
    app = create_app()               # or as an ASGI application
    run(port=0)                      # or from Python

It keeps nothing: a restart begins blank, as ``consul agent -dev`` does.
"""

from chassis.devagent._agent import DevAgent
from chassis.devagent._app import DevAgentApp
from chassis.devagent._catalog import Node
from chassis.devagent._run import create_app, print_ready, run, serve

__all__ = ["DevAgent", "DevAgentApp", "Node", "create_app", "print_ready", "run", "serve"]
