"""The report of a benchmark as a table for people."""

from __future__ import annotations

from typing import Any


def show(report: dict[str, Any]) -> str:
    """The report as a plain table."""
    machine, settings = report["machine"], report["settings"]
    lines = [
        f"{report['benchmark']}: {settings['rounds']} rounds of {1000 * settings['seconds']:g} ms a case, "
        f"{machine['cpus']} cpus, load {machine['load'][0]:.1f}"
        + (", QUICK: means nothing" * report["quick"]),
        ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        *(f"not measured: {name} ({why})" for name, why in report["missing"].items()),
    ]
    group = None
    for name, row in report["cases"].items():
        if row["group"] != group:
            group = row["group"]
            lines += ["", f"{group or 'cases':50} {'median ns':>10} {'quartiles':>19} {'ratio':>8}"]
        low, high = row["quartiles"]
        ratio = f"{row['ratio']:.1f}x" if "ratio" in row else ""
        note = f"  {row['note']}" if row["note"] else ""
        lines.append(f"{name:50} {row['ns']:10,.0f} {low:9,.0f}-{high:<9,.0f} {ratio:>8}{note}")
    if report["figures"]:
        lines += ["", f"{'figures':50} {'value':>10}"]
        for each in report["figures"]:
            lines.append(
                f"{each['name']:50} {each['value']:10,.4g} {each['unit']:10} {each['note']}".rstrip()
            )
    lines.append("")
    for each in report["targets"]:
        what = each["name"] + (f" less {each['less']}" if each["less"] else "")
        limit = f"{each['at_most']:g}" + (f"x {each['of']}" if each["of"] else "")
        lines.append(f"{'met   ' if each['met'] else 'MISSED'} {what}: {each['value']:.4g} (at most {limit})")
    return "\n".join(lines)
