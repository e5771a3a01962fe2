from __future__ import annotations

import asyncio
from pathlib import Path

from chassis.service import Chassis, chassis_of, examining


def check_target(target: str, *, assignments: tuple[str, ...]) -> str:
    """What is found where ``target`` is a service or a gateway's file, as text.

    :raises ConfigError: something of it cannot be used.
    """
    if target.endswith(".toml"):
        from chassis.gateway import check

        return str(check(Path(target)))
    from chassis.cli._target import load_target

    app = load_target(target)
    chassis = chassis_of(app)
    if chassis is None:
        return f"{target}: an application without a chassis; `chassis run` gives it one"
    chassis.override(assignments)
    return asyncio.run(_explained(chassis))


async def _explained(chassis: Chassis) -> str:
    # Each setting may be right, and a source that they lead to still keep the service from starting.
    async with examining(chassis):
        return chassis.explain()
