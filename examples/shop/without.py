"""What is switched off to see what it is good for, as settings of the services concerned."""

import json
from collections import defaultdict
from typing import Any

from examples.shop.shop import INSTANCES

POLICIES: dict[str, dict[str, dict[str, Any]]] = {
    # Nothing pays for a further attempt, so none is made.
    "failover": {
        "gateway": {"client:catalog/budget": {"ratio": 1e-6, "per_second": 0}},
        "orders": {"client:catalog/budget": {"ratio": 1e-6, "per_second": 0}},
    },
    # No failures in a row and no rate of them opens it.
    "breaker": {
        "orders": {"client:payments/breaker": {"consecutive_failures": None, "minimum_calls": 1_000_000}},
    },
}

UNDRAINED = {
    "SHOP_WITHOUT_DRAIN": "1",
    # Together they limit how long the server waits for open streams; nobody ends those now.
    "CHASSIS_SERVER__DRAIN": "0.1",
    "CHASSIS_SERVER__GRACE": "1",
}

FEATURES = (*POLICIES, "drain")


def settings(features: frozenset[str]) -> dict[str, dict[str, str]]:
    """The environment, by service, that switches ``features`` off."""
    policies: dict[str, dict[str, Any]] = defaultdict(dict)
    for feature in features & POLICIES.keys():
        for service, changes in POLICIES[feature].items():
            policies[service] |= changes
    environment = {service: {"CHASSIS_POLICIES": json.dumps(each)} for service, each in policies.items()}
    if "drain" in features:
        for service in INSTANCES:
            environment[service] = environment.get(service, {}) | UNDRAINED
    return environment
