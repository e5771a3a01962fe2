from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chassis.adapters.vault._answers import (
    Grant,
    data_path,
    login_grant,
    lookup_grant,
    missing,
    secret_version,
    trouble,
)
from chassis.adapters.vault._options import VaultOptions
from chassis.core.clock import Clock, monotonic
from chassis.core.secrets import Secret, SecretError, SecretVersion
from chassis.secrets import Due, TokenSession
from chassis.wire import plain_client, ssl_context

if TYPE_CHECKING:
    import httpx2

_MAX_CONNECTIONS = 8
"""Fifty reads at once take the server longer than the same reads eight at a time."""
_REVOKE_LIMIT = 2.0


class VaultSecrets:
    """Secrets of the KV version 2 engine of an OpenBao or Vault server.

    ``vault:secret/payments#api_key`` is the field ``api_key`` of the secret ``payments`` in the
    mount ``secret``. The token is renewed at two thirds of its life, whenever a secret is read; an
    AppRole logs in anew when renewal ends or the server no longer knows its token. It runs on one
    event loop at a time, and starts afresh on another.

    :param options: None takes them from the servers' own environment variables.
    """

    scheme = "vault"
    remote = True

    def __init__(self, options: VaultOptions | None = None, *, clock: Clock = monotonic) -> None:
        self.options = VaultOptions.from_environment() if options is None else options
        self.poll = self.options.poll
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx2.AsyncClient | None = None
        self._turn = asyncio.Lock()
        self._session = TokenSession()
        self._token: Secret | None = None
        self._why = ""

    def __repr__(self) -> str:
        return f"VaultSecrets({self.options.url!r})"

    async def read(self, path: str) -> SecretVersion:
        """What KV version 2 holds at ``mount/path`` now.

        :raises SecretError: it cannot be had.
        """
        self._use_this_loop()
        url = data_path(path)
        token = await self._good_token()
        status, body = await self._send("GET", url, token)
        if status == 403 and await self._is_dead(token):
            token = await self._good_token()
            status, body = await self._send("GET", url, token)
        if status == 200:
            return secret_version(path, body)
        if status == 404:
            raise missing(path, body)
        if status == 403:
            raise SecretError(
                f"vault:{path}: the token may not read it; its policy needs 'read' on "
                f"{url.removeprefix('/v1/')!r}",
                permanent=True,
            )
        raise trouble(f"the read of {path!r}", status, body)

    async def aclose(self) -> None:
        """Close the connections, and give back a token that we got ourselves.

        Revoking it ends whatever hangs on it as well. A token given to us is never revoked. Takes
        two seconds at most, and never raises for a server that does not answer.
        """
        token, self._token = self._token, None
        self._session.dead()
        if self._client is None or self._loop is not asyncio.get_running_loop():
            return
        try:
            if token is not None and self.options.role_id:
                async with asyncio.timeout(_REVOKE_LIMIT):
                    await self._send("POST", "/v1/auth/token/revoke-self", token)
        except (SecretError, TimeoutError):
            # It will expire by itself: the end of a process waits for no server.
            return
        finally:
            client, self._client = self._client, None
            await client.aclose()

    # the token

    async def _good_token(self) -> Secret:
        """A token that may be used now, renewed or got anew where that is due."""
        async with self._turn:
            due = self._session.due(self._clock())
            if due is Due.RENEW:
                await self._renew()
                due = self._session.due(self._clock())
            if due is Due.LOGIN:
                await self._login()
                due = self._session.due(self._clock())
            if due is Due.HOLD or self._token is None:
                again = self._session.retry_in(self._clock())
                raise SecretError(f"{self._why}; tried again in {again:.0f} s", permanent=False)
            return self._token

    async def _is_dead(self, token: Secret) -> bool:
        """Whether the server no longer knows ``token``: then the next use gets another one.

        The body of a 403 differs between a dead token and one without the right, but asking the
        server about the token is the test that no version can change.
        """
        status, _ = await self._send("GET", "/v1/auth/token/lookup-self", token)
        if status != 403:
            return False
        async with self._turn:
            # Of many readers that find out at once, the first has got a new one already.
            if self._token == token:
                self._session.dead()
        return True

    async def _renew(self) -> None:
        token = self._token
        if token is None:
            self._session.dead()
            return
        try:
            status, body = await self._send("POST", "/v1/auth/token/renew-self", token)
        except SecretError as error:
            self._hold(str(error), refused=False)
            return
        grant = login_grant(body) if status == 200 else None
        if grant is not None:
            self._session.renewed(self._clock(), ttl=grant.ttl)
        elif status == 403:
            self._session.dead()
        elif status >= 500 or status == 429:
            self._hold(str(trouble("the renewal of the token", status, body)), refused=False)
        else:
            self._session.not_renewable()

    async def _login(self) -> None:
        """Get a token; where that fails the session says how long to leave the server alone."""
        try:
            grant = await (self._approle_login() if self.options.role_id else self._token_login())
        except SecretError as error:
            self._hold(str(error), refused=error.permanent)
            if error.permanent and self._token is None:
                raise
            return
        self._token = grant.token
        self._session.logged_in(self._clock(), ttl=grant.ttl, renewable=grant.renewable)

    def _hold(self, why: str, *, refused: bool) -> None:
        self._why = why
        if refused:
            self._session.refused(self._clock())
        else:
            self._session.silent(self._clock())

    async def _approle_login(self) -> Grant:
        options = self.options
        secret_id = options.secret_id
        if options.secret_id_file:
            secret_id = await _read_file(options.secret_id_file, "secret id")
        body: dict[str, str] = {"role_id": options.role_id}
        if secret_id is not None:
            body["secret_id"] = secret_id.reveal()
        status, answer = await self._send("POST", f"/v1/auth/{options.approle_mount}/login", None, body)
        grant = login_grant(answer) if status == 200 else None
        if grant is None:
            raise trouble(f"the login of AppRole {options.role_id!r}", status, answer)
        return grant

    async def _token_login(self) -> Grant:
        options = self.options
        token = options.token
        if options.token_file:
            token = await _read_file(options.token_file, "token")
        if token is None:
            raise SecretError(
                "there is no token for the secret store; set BAO_TOKEN, BAO_TOKEN_FILE, or BAO_ROLE_ID "
                "and BAO_SECRET_ID",
                permanent=True,
            )
        status, body = await self._send("GET", "/v1/auth/token/lookup-self", token)
        grant = lookup_grant(token, body) if status == 200 else None
        if grant is None:
            if status == 403:
                raise SecretError(
                    "the secret store does not know the token: it is wrong, expired or revoked; "
                    "give a new one",
                    permanent=True,
                )
            raise trouble("the lookup of the token", status, body)
        return grant

    # the one way out

    async def _send(
        self, method: str, path: str, token: Secret | None, body: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        import httpx2

        headers = {"X-Vault-Request": "true"}
        if token is not None:
            headers["X-Vault-Token"] = token.reveal()
        if self.options.namespace:
            headers["X-Vault-Namespace"] = self.options.namespace
        name = self.options.tls_server_name
        try:
            response = await self._open().request(
                method,
                path,
                headers=headers,
                json=body,
                extensions={"sni_hostname": name} if name else None,
            )
        except httpx2.RequestError as error:
            # Not chained: the request hangs on the error, and the token on the request.
            raise SecretError(
                f"the secret store at {self.options.url} does not answer: {type(error).__name__}"
                f"{f': {error}' if str(error) else ''}",
                permanent=False,
            ) from None
        try:
            return response.status_code, json.loads(response.content) if response.content else None
        except ValueError:
            return response.status_code, None

    def _open(self) -> httpx2.AsyncClient:
        if self._client is None:
            options = self.options
            self._client = plain_client(
                options.url,
                timeout=options.timeout,
                connect_timeout=options.connect_timeout,
                verify=ssl_context(
                    ca=options.ca or None,
                    certificate=options.certificate or None,
                    key=options.key or None,
                    verify=options.verify,
                )
                if options.url.startswith("https:")
                else True,
                max_connections=_MAX_CONNECTIONS,
            )
        return self._client

    def _use_this_loop(self) -> None:
        """Connections belong to the event loop that made them; after a fork it is another one.

        So is the token: a child that gave back the one it shares would take it from its parent.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._client = None
            self._turn = asyncio.Lock()
            self._session.dead()
            self._token = None


async def _read_file(file: str, what: str) -> Secret:
    try:
        return Secret((await asyncio.to_thread(Path(file).read_text, "ascii")).strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no plain text"
        raise SecretError(
            f"the secret store's {what} file {file!r} cannot be read: {reason}; put the {what} there",
            permanent=True,
        ) from None
