"""``chassis doctor``: what a service would find, or what a running one has found."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from chassis.cli._doctor_running import NEXT, NEXT_OF_SOURCE, diagnose_running
from chassis.cli._doctor_systems import CROWDED, examine_consul, examine_vault, failing_checks
from chassis.cli._report import Report, Service
from chassis.client import check_service_name
from chassis.core import ConfigError, Reason, Snapshot, monotonic
from chassis.service import Chassis, Examination, chassis_of, examining

MOST_SERVICES = 50
"""How many services of a catalog are looked at when none are named: each is watched meanwhile."""
_MOST_CONNECTIONS = 20
_CONNECT_WITHIN = 1.0


def doctor(
    target: str | None,
    *,
    url: str,
    token: str,
    services: tuple[str, ...],
    wait: float,
    assignments: tuple[str, ...],
) -> Report:
    """Look, and say what was found.

    :raises ConfigError: a setting, the target or the combination of both cannot be used.
    """
    services = tuple(check_service_name(each) for each in services)
    if url:
        if target is not None or assignments:
            raise ConfigError(
                "a running service is asked, which has its settings",
                setting="--url",
                origin="command line",
                remedy="give neither MODULE:APP nor --set with it",
            )
        return asyncio.run(diagnose_running(url, token, services))
    return asyncio.run(diagnose_settings(_chassis(target, assignments), target, services, wait))


def _chassis(target: str | None, assignments: tuple[str, ...]) -> Chassis:
    if target is None:
        chassis = Chassis("doctor")
    else:
        from chassis.cli._target import load_target

        found = chassis_of(load_target(target))
        chassis = found or Chassis(target.partition(":")[0].rpartition(".")[2])
    chassis.override(assignments)
    return chassis


async def diagnose_settings(
    chassis: Chassis, target: str | None, services: tuple[str, ...], wait: float
) -> Report:
    """Read the settings as the service would, ask its sources, and judge what they say."""
    report = Report("")
    async with examining(chassis) as found:
        zone = found.options.registration.zone
        asking = chassis.name if target else "a service with these settings"
        report.subject = f"As {asking} would find it{f' from zone {zone}' if zone else ''}:"
        known = await examine_consul(report, found.consul)
        down = any(each.state == "trouble" for each in report.systems)
        await examine_vault(report)
        for name, each in found.configuration["sources"].items():
            silent = each["state"] in ("waiting", "unreachable")
            if silent and down:
                continue  # what follows from a system that is down is worth no line of its own
            if target is None and name.endswith(f"config/{chassis.name}/data"):
                continue  # read for a name that stands for no service
            if each["bad"] or silent:
                report.find(name, str(each["detail"]), NEXT_OF_SOURCE.get(each["state"], ""))
        names = services or found.called or tuple(sorted(known))
        if len(names) > MOST_SERVICES:
            rest = len(names) - MOST_SERVICES
            report.find(
                "services", f"{rest} more were not looked at", "name some with --service", urgent=False
            )
            names = names[:MOST_SERVICES]
        for service in await _ask(found, names, wait):
            report.services.append(service)
            await _judge(report, service, found, known, down)
    if not report.services:
        report.find(
            "services",
            "nothing says which services are called",
            "name one with --service, or give the application: chassis doctor module:app",
            urgent=False,
        )
    return report


async def _ask(found: Examination, names: tuple[str, ...], wait: float) -> list[Service]:
    """What the sources tell of each service, once all have told or ``wait`` is over."""
    heard: set[str] = set()
    told: dict[str, Any] = {}

    def listener(snapshot: Snapshot) -> None:
        heard.add(snapshot.service)

    subscriptions = [found.discovery.subscribe(name, listener) for name in names]
    try:
        until = monotonic() + wait
        while len(heard) < len(names) and monotonic() < until:  # noqa: ASYNC110 - told in another thread
            await asyncio.sleep(0.01)
        told = dict(found.discovery.describe())
    finally:
        for each in subscriptions:
            each.close()
    silent = {"instances": [], "reason": f"not all of its sources have answered in {wait:g} s"}
    asked = [
        Service(
            name=name, told={"origin": found.written.get(name), **(told[name] if name in heard else silent)}
        )
        for name in names
    ]
    return [await _with_connections(each) for each in asked]


async def _with_connections(service: Service) -> Service:
    """The same, with a word on each instance's address."""
    instances = service.instances
    tried = instances[:_MOST_CONNECTIONS]
    connects = await asyncio.gather(*(_connects(each) for each in tried))
    connects += [""] * (len(instances) - len(tried))
    more = [
        {**each, "fit": each["status"] in ("passing", "warning"), "connects": answer}
        for each, answer in zip(instances, connects, strict=True)
    ]
    return Service(name=service.name, told={**service.told, "instances": more})


async def _judge(
    report: Report, service: Service, found: Examination, known: tuple[str, ...], down: bool
) -> None:
    """What is wrong with a service, and what to do about it."""
    name, told = service.name, service.told
    if service.instances and told.get("freshness") in ("stale", "expired") and not down:
        error = told.get("error") or "its source does not answer"
        report.find(name, f"what is known is {told['freshness']}: {error}", "see to its source")
    for each in told.get("skipped") or ():
        problem = f"an entry of the registry cannot be used: {each}"
        report.find(name, problem, "register it anew, with an address and a port", urgent=not service.fit)
    reasons = await failing_checks(found.consul, name) if service.fit < len(service.instances) else {}
    for each in service.instances:
        if not each["fit"]:
            why = reasons.get(each["id"])
            problem = f"{each['id']} is {each['status']}{f': {why}' if why else ''}"
            report.find(name, problem, NEXT[each["status"]], urgent=not service.fit)
    reached = any(each["connects"] == "yes" for each in service.instances)
    for each in service.instances:
        if each["fit"] and each["connects"] == "no":
            report.find(
                name,
                f"{each['id']} is {each['status']}, but {each['url']} takes no connection from here",
                "start it, correct its address, or open the way to it",
                urgent=not reached,
            )
    reason = told.get("reason")
    # Of a service that a registry in trouble does not tell of, the registry's own line says what to do.
    if not service.instances and (not down or reason == Reason.NOT_REGISTERED.value):
        error = told.get("error")
        problem = f"{reason}: {error}" if error else str(reason)
        report.find(name, problem, _next_step(name, reason, found, known))


async def _connects(instance: Mapping[str, Any]) -> str:
    """Whether the instance's address takes a connection from here."""
    parts = urlsplit(instance["url"])
    try:
        async with asyncio.timeout(_CONNECT_WITHIN):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except (OSError, TimeoutError):
        return "no"
    writer.close()
    return "yes"


def _next_step(name: str, reason: Any, found: Examination, known: tuple[str, ...]) -> str:
    if reason == Reason.FILTERED.value:
        return "see chassis.discovery.tags, or register the instances with these tags"
    if reason == Reason.ACL_FILTERED.value:
        return f"give the token a policy with service {name!r} and node read"
    if reason == Reason.REGISTRY_DOWN.value:
        return f"the registry answers other questions: see its log, and {CROWDED}"
    if reason != Reason.NOT_REGISTERED.value:
        return "try again with a longer --wait, and see whether the name servers answer"
    if found.consul is None:
        return (
            f"say where it is (CHASSIS_SERVICES__{name.upper().replace('-', '_')}=http://host:port), "
            "or where the registry is (CONSUL_HTTP_ADDR=host:8500)"
        )
    close = get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}, which is registered?"
    return "start it with CONSUL_HTTP_ADDR set to this agent, and see its log for registration.refused"
