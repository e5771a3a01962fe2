"""Catalog, checks and entries as the JSON that Consul's API shows."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from chassis.devagent._catalog import Catalog, Check, Node, Service
from chassis.devagent._kv import Entry


def node(of: Node, index: int) -> dict[str, Any]:
    """A node as in ``/v1/catalog/nodes``."""
    return {
        "ID": of.id,
        "Node": of.name,
        "Address": of.address,
        "Datacenter": of.datacenter,
        "TaggedAddresses": _node_addresses(of),
        "Meta": {"consul-network-segment": ""},
        "CreateIndex": index,
        "ModifyIndex": index,
    }


def _node_addresses(of: Node) -> dict[str, str]:
    return dict.fromkeys(("lan", "lan_ipv4", "wan", "wan_ipv4"), of.address)


def check(of: Check, service: Service | None, on: Node, *, local: bool = False) -> dict[str, Any]:
    """A check as the catalog shows it, or with ``local`` as ``/v1/agent/checks`` does."""
    definition = service.definition if service else None
    return {
        "Node": on.name,
        "CheckID": of.id,
        "Name": of.name,
        "Status": of.status,
        "Notes": of.notes,
        "Output": of.output if local else of.shown_output,
        "ServiceID": definition.id if definition else "",
        "ServiceName": definition.name if definition else "",
        "ServiceTags": list(definition.tags) if definition else [],
        "Type": of.kind,
        "Definition": {},
        "CreateIndex": 0 if local else of.create_index,
        "ModifyIndex": 0 if local else of.modify_index,
    }


def health(service: Service, catalog: Catalog) -> dict[str, Any]:
    """One instance as in ``/v1/health/service/<name>``."""
    checks = [
        check(each, service if each.id in service.checks else None, catalog.node)
        for each in catalog.checks_of(service)
    ]
    return {
        "Node": node(catalog.node, catalog.nodes_index),
        "Service": {
            **_service(service),
            "Proxy": {"MeshGateway": {}, "Expose": {}},
            "Connect": {},
            "CreateIndex": service.create_index,
            "ModifyIndex": service.modify_index,
        },
        "Checks": checks,
    }


def catalog_service(service: Service, on: Node) -> dict[str, Any]:
    """One instance as in ``/v1/catalog/service/<name>``."""
    shown = _service(service)
    tagged = shown.pop("TaggedAddresses", None)
    return {
        "ID": on.id,
        "Node": on.name,
        "Address": on.address,
        "Datacenter": on.datacenter,
        "TaggedAddresses": _node_addresses(on),
        "NodeMeta": {"consul-network-segment": ""},
        "ServiceKind": "",
        "ServiceID": shown.pop("ID"),
        "ServiceName": shown.pop("Service"),
        **({"ServiceTaggedAddresses": tagged} if tagged else {}),
        **{f"Service{name}": value for name, value in shown.items()},
        "ServiceProxy": {"MeshGateway": {}, "Expose": {}},
        "ServiceConnect": {},
        "CreateIndex": service.create_index,
        "ModifyIndex": service.modify_index,
    }


def agent_service(service: Service, on: Node) -> dict[str, Any]:
    """One instance as in ``/v1/agent/services``."""
    return {**_service(service), "Datacenter": on.datacenter}


def content_hash(shown: dict[str, Any]) -> str:
    """A short digest that changes when the instance does."""
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:16]


def _service(service: Service) -> dict[str, Any]:
    of = service.definition
    tagged = {"TaggedAddresses": dict(of.tagged_addresses)} if of.tagged_addresses else {}
    return {
        "ID": of.id,
        "Service": of.name,
        "Tags": list(of.tags),
        "Meta": dict(of.meta),
        "Port": of.port,
        "Address": of.address,
        **tagged,
        "Weights": {"Passing": of.weights[0], "Warning": of.weights[1]},
        "EnableTagOverride": of.enable_tag_override,
    }


def entry(of: Entry) -> dict[str, Any]:
    """A key; an empty value is null, as in Consul."""
    return {
        "LockIndex": 0,
        "Key": of.key,
        "Flags": of.flags,
        "Value": base64.b64encode(of.value).decode() if of.value else None,
        "CreateIndex": of.create_index,
        "ModifyIndex": of.modify_index,
    }
