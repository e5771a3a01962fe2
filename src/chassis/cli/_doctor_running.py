"""What a running service tells of itself on ``/health``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from chassis.cli._report import Report, Service, System
from chassis.core import ConfigError
from chassis.wire import plain_client

NEXT = {
    "critical": "nobody is sent there until its check passes: see the instance's own /health and log",
    "maintenance": "nobody is sent there until whoever asked for it ends it",
}
"""What follows from an instance's status, and where to look."""
NEXT_OF_SOURCE = {
    "rejected": "correct it; until then the settings read last hold",
    "vanished": "write it again, if only an empty one; until then the settings read last hold",
    "unreachable": "until it can be read the settings read last hold",
}
"""The same of a source of settings."""
_NEXT_OF_CHECK = {"consul": "see to the agent; until it answers, what it told last goes on"}
_OPEN = ("open", "half_open", "forced_open")
_HELD_OPEN = 'settings or an operator hold it open: see the policy "{}"'
_AGAIN = "it is tried again by itself: see {} log for why it failed"


async def diagnose_running(url: str, token: str, services: tuple[str, ...]) -> Report:
    """Ask a running service, and judge what it says.

    :param token: its ``health_token``; "" for none.
    :param services: those to look at; empty for all it calls.
    """
    url = url.rstrip("/").removesuffix("/health")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"{url!r} is no address of a service",
            setting="--url",
            origin="command line",
            remedy="write http://host:port",
        )
    report = Report(f"As the service at {url} finds it:")
    headers = {"Authorization": f"Bearer {token}"} if token else None
    try:
        async with plain_client(url, headers=headers) as client:
            told = json.loads((await client.get("/health")).content)
            if not isinstance(told, dict) or "status" not in told:
                raise ValueError("its answer is none of a chassis")
    except Exception as error:  # noqa: BLE001 - whatever keeps it from answering is what is reported
        report.find(
            url,
            f"/health gave no answer that can be used: {type(error).__name__}: {error}",
            "start the service, correct the address, or see why it hangs",
        )
        return report
    if "checks" not in told:
        report.find(
            url,
            f"it says {told['status']!r} and keeps the details to itself",
            "give its health_token by --token or CHASSIS_HEALTH_TOKEN, or ask from its own machine",
        )
        return report
    report.subject = f"As {told.get('service')} at {url} finds it ({told['status']}, {told.get('state')}):"
    _checks(report, told)
    # What follows from a registry that is down is worth no line of its own.
    down = told["checks"].get("consul", {}).get("status", "pass") != "pass"
    _registration(report, told.get("registration"), down=down)
    _configuration(report, told.get("configuration") or {}, down=down)
    policies = told.get("policies") or {}
    for name, each in sorted((told.get("discovery") or {}).items()):
        if not services or name in services:
            _service(report, name, each, policies, down=down)
    if not services:
        _breakers(report, policies)
    for name in services:
        if name not in (told.get("discovery") or {}):
            report.find(name, "the service does not call it", "see the name", urgent=False)
    return report


def _checks(report: Report, told: Mapping[str, Any]) -> None:
    if told.get("state") != "ready":
        report.find("state", f"the service is {told.get('state')}", "wait for it to be ready")
    for name, check in told["checks"].items():
        note = check.get("note") or ""
        well = check["status"] == "pass"
        report.systems.append(System(name=name, state="ok" if well else "trouble", detail=note))
        if not well and name != "configuration":  # its sources say more
            said = f"the check says {check['status']}{f': {note}' if note else ''}"
            report.find(name, said, _NEXT_OF_CHECK.get(name, "see the service's log for the check's error"))
    lag = told.get("loop_lag_ms") or 0
    if lag >= 1000:
        report.find(
            "event loop", f"it lags by {lag / 1000:.1f} s", "find what blocks it, or give it a thread"
        )


def _registration(report: Report, told: Mapping[str, Any] | None, *, down: bool) -> None:
    if told is None:
        report.systems.append(System(name="registration", state="off", detail="it is registered nowhere"))
        return
    maintenance = told.get("maintenance")
    beat = told.get("heartbeat") or {}
    heartbeat = f"heartbeat {beat['status']} ({beat.get('note')})" if beat else "no heartbeat yet"
    detail = f"{told.get('id')}, {heartbeat}"
    state = "ok" if told.get("confirmed") else "trouble"
    report.systems.append(System(name="registration", state=state, detail=detail))
    if not told.get("confirmed") and not down:
        report.find(
            "registration",
            str(told.get("trouble") or "not confirmed yet"),
            "it is tried again until it works",
        )
    if maintenance:
        by = "an operator" if maintenance["operator"] else "the service itself"
        report.find(
            "registration",
            f"under maintenance, asked for by {by}: {maintenance['reason']}",
            "nobody is sent here until it is ended",
            urgent=False,
        )
    if told.get("shares_its_address_with"):
        others = ", ".join(told["shares_its_address_with"])
        report.find(
            "registration",
            f"others are registered at the same address: {others}",
            "give each service a port of its own, and deregister what no longer runs",
        )


def _configuration(report: Report, told: Mapping[str, Any], *, down: bool) -> None:
    for name, each in (told.get("sources") or {}).items():
        follows = down and name.startswith("consul ") and each["state"] == "unreachable"
        if each["bad"] and not follows:
            report.find(name, str(each["detail"]), NEXT_OF_SOURCE.get(each["state"], ""))
    for name, each in (told.get("settings") or {}).items():
        if each["bad"]:
            report.find(f"settings {name}", str(each["detail"]), "until then those read last hold")


def _service(
    report: Report, name: str, told: Mapping[str, Any], policies: Mapping[str, Any], *, down: bool
) -> None:
    """A service it calls: discovery's view, with the breakers and ejections of its own calls."""
    balancing = policies.get(f"client:{name}/balancing") or {}
    breakers = (policies.get(f"client:{name}/breaker") or {}).get("instances") or {}
    standing = balancing.get("instances") or {}
    instances, called = [], []
    for each in told.get("instances") or ():
        known_as = _known_as(each, standing)
        called.append(known_as or each["id"])
        instances.append(_instance(name, each, breakers.get(known_as) or {}, standing.get(known_as) or {}))
    usable = sum(not each["problems"] for each in instances)
    more = {
        "instances": instances,
        "callable": usable,
        "policy": balancing.get("policy"),
        "zone": (balancing.get("options") or {}).get("zone"),
        "panic": balancing.get("panic"),
    }
    report.services.append(Service(name=name, told={**told, **more}))
    if not instances:
        report.find(name, str(told.get("reason")), f"run chassis doctor --service {name} for the next step")
    elif told.get("freshness") in ("stale", "expired") and not down:
        error = told.get("error") or "its source does not answer"
        report.find(name, f"what is known is {told['freshness']}: {error}", "see to its source")
    for known_as, each in zip(called, instances, strict=True):
        if each["problems"]:
            # While others are left this costs no call.
            problem = f"{known_as} {' and '.join(each['problems'])}"
            report.find(name, problem, each["next"], urgent=not usable)
    if balancing.get("panic"):
        report.find(name, "so few instances are fit that all are called (panic)", "see to those that are not")


def _known_as(told: Mapping[str, Any], standing: Mapping[str, Any]) -> str:
    """Under which name the service's balancing and breakers know an instance: two may have one id.

    "" for one that discovery tells of and no call knows yet.
    """
    address = told["url"].partition("://")[2]
    for name in (f"{told['id']} at {address}", told["id"]):
        if name in standing and standing[name].get("address") == address:
            return str(name)
    return ""


def _instance(
    service: str, told: Mapping[str, Any], breaker: Mapping[str, Any], standing: Mapping[str, Any]
) -> dict[str, Any]:
    """One of its instances: what keeps calls from it, and what to do about the first of that."""
    problems, steps = [], []
    if told["status"] not in ("passing", "warning"):
        problems.append(f"is {told['status']}")
        steps.append(NEXT[told["status"]])
    state = breaker.get("state")
    if state in _OPEN:
        last = breaker.get("last_failure")
        problems.append(f"has its breaker {state}{f' after {last}' if last else ''}")
        steps.append(
            _HELD_OPEN.format(f"client:{service}/breaker")
            if state == "forced_open"
            else _AGAIN.format("the instance's")
        )
    ejected_for, share = standing.get("ejected_for"), standing.get("share", 1.0)
    if ejected_for is not None:
        problems.append("is passed over, since it fails more than its peers")
        steps.append("it is tried again by itself: compare its log with a peer's")
    return {
        **told,
        "tier": standing.get("tier") or None,
        "warming": f"{share:.0%} of its traffic" if share < 1 else None,
        "breaker": state,
        "ejected": None if ejected_for is None else f"for {ejected_for:.0f} s more",
        "problems": problems,
        "next": steps[0] if steps else "",
    }


def _breakers(report: Report, policies: Mapping[str, Any]) -> None:
    """Those that stand in the service's own code, beside the ones of its clients."""
    for key, told in sorted(policies.items()):
        if not key.startswith("breaker:"):
            continue
        family = told.get("breakers")
        for name, each in [(key, told)] if family is None else sorted(family.items()):
            if each.get("state") in _OPEN:
                about = key if family is None else f"{key}/{name}"
                last = each.get("last_failure")
                forced = each["state"] == "forced_open"
                report.find(
                    about,
                    f"the breaker is {each['state']}{f' after {last}' if last else ''}",
                    _HELD_OPEN.format(key) if forced else _AGAIN.format("the service's"),
                )
