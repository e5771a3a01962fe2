"""A client that looks at zones, weights and keys, hedges, and goes elsewhere when an instance is gone.

Run in this folder: python failover.py
"""

import asyncio
import time
import tomllib
from collections import Counter
from pathlib import Path

from instances import Instance

from chassis import Chassis

chassis = Chassis("storefront")  # reads chassis.toml
catalog = chassis.client("catalog")
carts = chassis.client("carts")


async def page(_number: int) -> tuple[str, int, float]:
    """Who answered, after how many attempts, and how long it took."""
    began = time.perf_counter()
    answer = await catalog.get("/items")
    return answer.text, answer.extensions["chassis"].attempts, time.perf_counter() - began


async def hundred_pages(what: str) -> None:
    """Ten at a time. Nothing is caught here: an error would end the program."""
    told = []
    for _ in range(10):
        told += await asyncio.gather(*map(page, range(10)))
    by = ", ".join(f"{who} {count}" for who, count in sorted(Counter(each[0] for each in told).items()))
    attempts, slowest = sum(each[1] for each in told), max(each[2] for each in told)
    print(f"{what:<16}  {by:<15} {attempts} attempts, slowest {slowest * 1e3:.0f} ms")


async def carts_of(*users: str) -> None:
    """Where the cart of each user is."""
    for user in users:
        answer = await carts.get("/cart", extensions={"chassis": {"key": user}})
        print(f"  {user}: {answer.text}", end="")
    print()


async def main(services: dict[str, list[dict[str, str]]]) -> None:
    listed = [instance for instances in services.values() for instance in instances]
    instances = {each["id"]: Instance(each["id"], each["url"]) for each in listed}
    async with chassis:
        await hundred_pages("all are well")
        instances["a2"].delay = 0.4
        await hundred_pages("a2 is slow")
        instances["a2"].delay = 0
        for gone in ("a2", "a1", "b1"):
            instances[gone].stop()
            await hundred_pages(f"{gone} is gone")
        await carts_of("ann", "bob", "cy", "dee", "eve", "flo")
        instances["cart-2"].stop()
        print("cart-2 is gone")
        await carts_of("ann", "bob", "cy", "dee", "eve", "flo")


if __name__ == "__main__":
    asyncio.run(main(tomllib.loads(Path("services.toml").read_text())["services"]))
