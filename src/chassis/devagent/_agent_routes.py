"""``/v1/agent/...`` and ``/v1/status/...``: what a service says of itself."""

from __future__ import annotations

from chassis.devagent import _views
from chassis.devagent._agent import DevAgent
from chassis.devagent._definitions import STATUSES, fold_keys, parse_service
from chassis.devagent._errors import AgentError, bad_request, lacking
from chassis.devagent._http import Request, Response, json_response

VERSION = "1.22.0+chassis"
"""The Consul release whose answers this agent gives; the suffix says that it is not that release."""

_VERBS = {"pass": "passing", "warn": "warning", "fail": "critical"}
_RAFT_ADDRESS = "127.0.0.1:8300"
_DONE = Response()


def agent_self(agent: DevAgent, _request: Request, _rest: str) -> Response:
    """Who this agent is: only what is true of it."""
    node = agent.catalog.node
    config = {
        "Datacenter": node.datacenter,
        "NodeName": node.name,
        "NodeID": node.id,
        "Server": True,
        "Version": VERSION,
    }
    member = {"Name": node.name, "Addr": node.address, "Status": 1}
    return json_response({"Config": config, "Member": member, "Meta": {"consul-network-segment": ""}})


def services(agent: DevAgent, _request: Request, _rest: str) -> Response:
    """The instances registered with this agent, by id."""
    agent.advance()
    node = agent.catalog.node
    return json_response({key: _views.agent_service(each, node) for key, each in agent.services().items()})


def service(agent: DevAgent, _request: Request, service_id: str) -> Response:
    """One registered instance."""
    agent.advance()
    found = agent.services().get(service_id)
    if found is None:
        raise AgentError(404, f"unknown service ID: {service_id}")
    shown = _views.agent_service(found, agent.catalog.node)
    digest = _views.content_hash(shown)
    return json_response({**shown, "ContentHash": digest}, headers=(("X-Consul-ContentHash", digest),))


def checks(agent: DevAgent, _request: Request, _rest: str) -> Response:
    """The checks registered with this agent, by id, with the output heard last."""
    agent.advance()
    node = agent.catalog.node
    shown = {check.id: _views.check(check, of, node, local=True) for of, check in agent.checks()}
    return json_response(shown)


def register(agent: DevAgent, request: Request, _rest: str) -> Response:
    """Register an instance, or change it."""
    definition = parse_service(request.json())
    replace = request.has("replace-existing-checks") and request.get("replace-existing-checks") in (
        "",
        "true",
    )
    agent.register(definition, replace_checks=replace)
    return _DONE


def deregister(agent: DevAgent, _request: Request, service_id: str) -> Response:
    """Take an instance away."""
    agent.deregister(service_id)
    return _DONE


def service_maintenance(agent: DevAgent, request: Request, service_id: str) -> Response:
    """Take an instance out of service, or put it back."""
    if not service_id:
        bad_request("Missing service ID")
    agent.service_maintenance(service_id, enable=request.flag("enable"), reason=request.get("reason"))
    return _DONE


def node_maintenance(agent: DevAgent, request: Request, _rest: str) -> Response:
    """Take every instance out of service, or put them back."""
    agent.node_maintenance(enable=request.flag("enable"), reason=request.get("reason"))
    return _DONE


def check_status(agent: DevAgent, request: Request, rest: str) -> Response:
    """A heartbeat: ``pass/<id>``, ``warn/<id>`` or ``fail/<id>``, with a note."""
    verb, _, check_id = rest.partition("/")
    if verb not in _VERBS:
        lacking(f"/v1/agent/check/{verb}")
    agent.update_ttl(check_id, _VERBS[verb], request.get("note"))
    return _DONE


def check_update(agent: DevAgent, request: Request, check_id: str) -> Response:
    """A heartbeat with its status and output in the body."""
    body = request.json()
    raw = fold_keys(body) if isinstance(body, dict) else {}
    status, output = raw.get("status") or "", raw.get("output") or ""
    if not isinstance(output, str):
        bad_request("Request decode failed: json: Output is not a string")
    if status not in STATUSES:
        bad_request(f"Invalid check status: '{status}'")
    agent.update_ttl(check_id, status, output)
    return _DONE


def leader(_agent: DevAgent, _request: Request, _rest: str) -> Response:
    """The leader's address: this agent is its own."""
    return json_response(_RAFT_ADDRESS)


def peers(_agent: DevAgent, _request: Request, _rest: str) -> Response:
    """The servers' addresses: this agent alone."""
    return json_response([_RAFT_ADDRESS])
