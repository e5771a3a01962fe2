"""One instance of the service under load: chassis's own lifecycle and registrar under uvicorn.

One process, so that a signal to it is a signal to all of it.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import uvicorn

from chassis import Chassis

BODY = json.dumps({"pid": os.getpid()}).encode()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await asyncio.sleep(0.002)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def main() -> None:
    chassis = Chassis("load-catalog")
    chassis.on_ready(lambda _, address: print(json.dumps({"port": address.port}), flush=True))
    config = uvicorn.Config(
        chassis.asgi(app), host="127.0.0.1", port=0, log_level="warning", access_log=False, lifespan="on"
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
