"""What ``chassis doctor`` found: as data, as JSON, as a page of text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

_COLUMNS = (
    "id", "url", "status", "zone", "datacenter", "weight", "priority", "tier", "warming", "connects", "breaker", "ejected"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that was found wrong, or worth a look.

    :param about: a service, a system, a setting.
    :param problem: what is so.
    :param next: what to do about it.
    :param urgent: whether calls fail, or may soon; what is not is told all the same.
    """

    about: str
    problem: str
    next: str = ""
    urgent: bool = True


@dataclass(frozen=True, kw_only=True)
class System:
    """A system the service depends on, and how it answered.

    :param state: ``ok``, ``trouble``, or ``off`` for one that is not configured.
    """

    name: str
    address: str = ""
    state: str = "ok"
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service as its source tells of it.

    :param told: what ``Discovery.describe`` says, its instances with what else is known of them.
    """

    name: str
    told: Mapping[str, Any]

    @property
    def instances(self) -> Sequence[Mapping[str, Any]]:
        """Its instances, fit or not."""
        return self.told.get("instances") or ()

    @property
    def fit(self) -> int:
        """How many of them may be called."""
        return sum(each["status"] in ("passing", "warning") for each in self.instances)


@dataclass
class Report:
    """All of it.

    :ivar subject: what was looked at.
    """

    subject: str
    systems: list[System] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether there is nothing to do."""
        return not any(each.urgent for each in self.findings)

    def find(self, about: str, problem: str, next: str = "", *, urgent: bool = True) -> None:  # noqa: A002 - as the field
        """Add a finding, once."""
        finding = Finding(about=about, problem=problem, next=next, urgent=urgent)
        if finding not in self.findings:
            self.findings.append(finding)

    def as_json(self) -> str:
        """For programs."""
        body = {
            "subject": self.subject,
            "well": self.well,
            "systems": [asdict(each) for each in self.systems],
            "services": {each.name: dict(each.told) for each in self.services},
            "findings": [asdict(each) for each in self.findings],
        }
        return json.dumps(body, indent=2, default=str)

    def as_text(self) -> str:
        """For people."""
        lines = [self.subject, *[""][: len(self.systems)]]
        width = max((len(each.name) for each in self.systems), default=0)
        for system in self.systems:
            told = (system.address, system.state.upper() if system.state == "trouble" else system.state)
            head = "  ".join(each for each in (f"{system.name:{width}}", *told) if each)
            lines.append(f"{head}: {system.detail}" if system.detail else head)
        for service in self.services:
            lines += ["", *_service_lines(service)]
        for title, urgent in (("To do", True), ("Worth a look", False)):
            findings = [each for each in self.findings if each.urgent is urgent]
            if findings:
                lines += ["", f"{title}:"]
            for number, each in enumerate(findings, 1):
                lines.append(f"  {number}. {each.about}: {each.problem}")
                if each.next:
                    lines.append(f"     -> {each.next}")
        return "\n".join([*lines, "", self._conclusion()])

    def _conclusion(self) -> str:
        urgent = sum(each.urgent for each in self.findings)
        if urgent:
            return f"{urgent} thing{'s' * (urgent > 1)} to do."
        return "Nothing has to be done." if self.findings else "All is well."


def _service_lines(service: Service) -> list[str]:
    told, count = service.told, len(service.instances)
    head = f"{service.fit} of {count} instances fit" if count else "no instance"
    if told.get("callable", service.fit) < service.fit:
        head += f", {told['callable'] or 'none'} of them called now"
    origin = f" from {told['origin']}" if told.get("origin") else ""
    facts = [f"{told['source']}{origin}"] if told.get("source") else []
    if told.get("freshness"):
        facts.append(told["freshness"])
    if told.get("age") is not None:
        facts.append(f"{told['age']:.1f} s old")
    if told.get("index"):
        facts.append(f"index {told['index']}")
    if told.get("policy"):
        zone = f" from zone {told['zone']}" if told.get("zone") else ""
        facts.append(f"{told['policy']}{zone}{', in panic' if told.get('panic') else ''}")
    # Where nobody knows a service it is no use to say who did not.
    source = f" ({', '.join(facts)})" if facts and (count or told.get("index")) else ""
    lines = [f"{service.name}: {head}{source}"]
    if not count and told.get("reason"):
        lines.append(f"  {told['reason']}")
    # A column that is empty for all would only be in the way.
    columns = [
        name for name in _COLUMNS if any(each.get(name) not in (None, "") for each in service.instances)
    ]
    if service.instances:
        rows = [columns, *([_cell(each.get(name)) for name in columns] for each in service.instances)]
        widths = [max(len(row[place]) for row in rows) for place in range(len(columns))]
        for row in rows:
            cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
            lines.append(f"  {'  '.join(cells)}".rstrip())
    return lines


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
