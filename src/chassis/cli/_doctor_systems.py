"""Whether the systems a service depends on answer, and take its tokens."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from chassis.adapters.consul import (
    ConsulAPI,
    ConsulError,
    ConsulForbidden,
    ConsulUnavailable,
    ConsulUnreachable,
)
from chassis.adapters.vault import VaultOptions
from chassis.cli._report import Report, System
from chassis.wire import plain_client, ssl_context

CROWDED = (
    "see whether it ends, or has as many connections from this address as it grants "
    "(limits.http_max_conns_per_client, 200 by default)"
)
"""What to do about a Consul agent that closes connections without a word."""


class _Trouble(Exception):
    """A system that cannot be used, and what to do about it."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.remedy = remedy


async def examine_consul(report: Report, api: ConsulAPI | None) -> tuple[str, ...]:
    """Ask Consul for its leader and its services; their names, or none."""
    if api is None:
        detail = "services are found by settings, file and DNS"
        report.systems.append(System(name="consul", state="off", detail=detail))
        return ()
    url = api.options.url
    try:
        leader, names = await _ask_consul(api)
    except _Trouble as trouble:
        _tell(report, "consul", url, trouble)
        return ()
    finally:
        await api.aclose()
    given = "the token is taken" if api.options.token or api.options.token_file else "no token is given"
    detail = f"leader {leader}, {given}, {len(names)} service{'s' * (len(names) != 1)} to be seen"
    report.systems.append(System(name="consul", address=url, detail=detail))
    return names


async def _ask_consul(api: ConsulAPI) -> tuple[str, tuple[str, ...]]:
    try:
        leader = await api.leader()
    except ConsulError as error:
        if error.status in (404, 405):
            told = f"what answers there is no Consul agent: status {error.status} to GET /v1/status/leader"
            raise _Trouble(told, "correct CONSUL_HTTP_ADDR") from error
        raise _Trouble(str(error), _remedy(error)) from error
    if not leader:
        remedy = "see `consul operator raft list-peers` and the servers' logs"
        raise _Trouble("its servers have no leader", remedy)
    try:
        known = (await api.services()).value
    except ConsulForbidden as error:
        raise _Trouble(f"it does not take the token: {error}", _remedy(error)) from error
    except ConsulError as error:
        raise _Trouble(str(error), _remedy(error)) from error
    return leader, tuple(name for name in known if name != "consul")


def _remedy(error: ConsulError) -> str:
    """What to do about an agent that does not answer as it should."""
    if isinstance(error, ConsulForbidden):
        return "correct CONSUL_HTTP_TOKEN, or what the file of CONSUL_HTTP_TOKEN_FILE holds"
    if isinstance(error, ConsulUnreachable):
        return CROWDED if error.dropped else "start the agent, or correct CONSUL_HTTP_ADDR"
    if error.status == 429:
        return f"the agent refuses what it is asked: {CROWDED}"
    if isinstance(error, ConsulUnavailable):
        return "see the agent's log, and whether it reaches its servers (`consul members`)"
    # A proxy, a login page or a wrong port.
    return "correct CONSUL_HTTP_ADDR, so that it leads to a Consul agent and nothing before it"


async def failing_checks(api: ConsulAPI | None, service: str) -> dict[str, str]:
    """Per instance that is not passing the check that says so, and what it says."""
    if api is None:
        return {}
    try:
        entries = (await api.health(service)).value
    except ConsulError:
        return {}
    finally:
        await api.aclose()
    found = {}
    for entry in entries:
        # Those that are not of Consul's form are told of as skipped.
        with contextlib.suppress(AttributeError, KeyError, TypeError):
            for check in entry["Checks"]:
                if check.get("Status") not in ("passing", "warning"):
                    said = " ".join(str(check.get("Output") or check.get("Notes") or "").split())[:200]
                    found[str(entry["Service"]["ID"])] = (
                        f"{check.get('Name')} says {said!r}"
                        if said
                        else f"its check {check.get('CheckID')} says nothing more"
                    )
    return found


async def examine_vault(report: Report) -> None:
    """Ask OpenBao or Vault whether it is unsealed, and whether it knows the token."""
    if not (os.environ.get("BAO_ADDR") or os.environ.get("VAULT_ADDR")):
        detail = "secrets come from files and settings"
        report.systems.append(System(name="vault", state="off", detail=detail))
        return
    options = VaultOptions.from_environment()
    try:
        async with _vault_client(options) as client:
            detail = await _ask_vault(client, options)
    except _Trouble as trouble:
        _tell(report, "vault", options.url, trouble)
    except Exception as error:  # noqa: BLE001 - whatever keeps it from answering is what is reported
        told = f"it did not answer: {type(error).__name__}{f': {error}' if str(error) else ''}"
        remedy = "start it, or correct BAO_ADDR (or VAULT_ADDR)"
        _tell(report, "vault", options.url, _Trouble(told, remedy))
    else:
        report.systems.append(System(name="vault", address=options.url, detail=detail))


def _vault_client(options: VaultOptions) -> Any:
    context = None
    if options.url.startswith("https:") and (options.ca or options.certificate):
        context = ssl_context(
            ca=options.ca or None,
            certificate=options.certificate or None,
            key=options.key or None,
            verify=options.verify,
        )
    return plain_client(
        options.url,
        timeout=options.timeout,
        connect_timeout=options.connect_timeout,
        verify=options.verify if context is None else context,
        headers={"X-Vault-Namespace": options.namespace} if options.namespace else None,
    )


async def _ask_vault(client: Any, options: VaultOptions) -> str:
    any_state = {"standbyok": "true", "sealedcode": "200", "uninitcode": "200"}
    health = (await client.get("/v1/sys/health", params=any_state)).json()
    if not health.get("initialized"):
        raise _Trouble("it is not initialised", "run `bao operator init`")
    if health.get("sealed"):
        raise _Trouble("it is sealed", "run `bao operator unseal`")
    if options.role_id:
        return "unsealed; an AppRole is to log in, which was not tried"
    token, where = _token(options)
    answer = await client.get("/v1/auth/token/lookup-self", headers={"X-Vault-Token": token})
    if answer.status_code != 200:
        raise _Trouble(f"it does not take the token of {where}", "give a valid one")
    ttl = answer.json().get("data", {}).get("ttl")
    return f"unsealed; the token of {where} is taken{f', for {ttl} s more' if ttl else ''}"


def _token(options: VaultOptions) -> tuple[str, str]:
    """The token, and where it is from."""
    if options.token is not None:
        return options.token.reveal(), "BAO_TOKEN (or VAULT_TOKEN)"
    where = options.token_file
    if not where:
        raise _Trouble("no token is given", "set BAO_TOKEN, BAO_TOKEN_FILE or BAO_ROLE_ID")
    try:
        return Path(where).read_text(encoding="ascii").strip(), where
    except (OSError, UnicodeDecodeError) as error:
        raise _Trouble(f"the token file {where!r} cannot be read", "put the token there") from error


def _tell(report: Report, name: str, address: str, trouble: _Trouble) -> None:
    report.systems.append(System(name=name, address=address, state="trouble", detail=str(trouble)))
    report.find(name, str(trouble), trouble.remedy)
