from __future__ import annotations

from pathlib import Path


def check_target(target: str, *, assignments: tuple[str, ...]) -> str:
    """What is found where ``target`` is a service or a gateway's file, as text.

    :raises ConfigError: something of it cannot be used.
    """
    if target.endswith(".toml"):
        from chassis.gateway import check

        return str(check(Path(target)))
    from chassis.cli._target import load_target
    from chassis.service import chassis_of

    app = load_target(target)
    chassis = chassis_of(app)
    if chassis is None:
        return f"{target}: an application without a chassis; `chassis run` gives it one"
    chassis.override(assignments)
    return chassis.explain()
