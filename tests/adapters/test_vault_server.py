"""The secret store's adapter on a real OpenBao."""

import httpx2
import pytest

from chassis.adapters.vault import VaultOptions, VaultSecrets
from chassis.config import Configuration
from chassis.core import events
from chassis.secrets import Secret, SecretError, SecretLost, SecretRotated, SecretStore
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


class Admin:
    """What an operator does, by the server's own API."""

    def __init__(self, server, token=None):
        self.http = httpx2.Client(
            base_url=server.url, headers={"X-Vault-Token": token or server.token}, timeout=10, trust_env=False
        )

    def __call__(self, method, path, **body):
        answer = self.http.request(method, f"/v1/{path}", json=body or None)
        answer.raise_for_status()
        return answer.json() if answer.content else {}

    def write(self, path, **values):
        self("POST", f"secret/data/{path}", data=values)


@pytest.fixture
def admin(bao_server):
    made = Admin(bao_server)
    yield made
    made.http.close()


@pytest.fixture
def options(bao_server):
    return VaultOptions(url=bao_server.url, token=Secret(bao_server.token), poll=0.05)


@pytest.mark.asyncio
async def test_what_a_404_means_on_the_real_server(admin, options):
    """Missing, no mount, soft-deleted, destroyed, undeleted."""
    vault = VaultSecrets(options)
    admin.write("shapes", a="1")
    assert (await vault.read("secret/shapes")).values["a"].reveal() == "1"
    with pytest.raises(SecretError, match="there is no such secret"):
        await vault.read("secret/nothing-here")
    with pytest.raises(SecretError, match="nothing is mounted at 'nowhere'"):
        await vault.read("nowhere/shapes")
    admin("DELETE", "secret/data/shapes")
    with pytest.raises(SecretError, match="version 1 was deleted"):
        await vault.read("secret/shapes")
    admin("POST", "secret/undelete/shapes", versions=[1])
    assert (await vault.read("secret/shapes")).version == "1"
    admin("PUT", "secret/destroy/shapes", versions=[1])
    with pytest.raises(SecretError, match="version 1 was destroyed"):
        await vault.read("secret/shapes")
    await vault.aclose()


@pytest.mark.asyncio
async def test_a_new_version_is_seen_without_restart(admin, options):
    """From the server through store and settings to the service; no value in any event."""
    from pydantic import BaseModel

    class Payments(BaseModel):
        user: Secret
        api_key: Secret

    seen = []
    end = events.subscribe(seen.append)
    seen.clear()  # what earlier tests left behind
    admin.write("rotating", user="u1", api_key="hunter2")
    store = SecretStore(VaultSecrets(options))
    configuration = Configuration(
        "payments",
        environment={
            "PAYMENTS_USER": "vault:secret/rotating#user",
            "PAYMENTS_API_KEY": "vault:secret/rotating#api_key",
        },
        secrets=store,
    )
    settings = configuration.settings(Payments)
    await configuration.start()
    assert (settings.user.reveal(), settings.api_key.reveal()) == ("u1", "hunter2")
    admin.write("rotating", user="u2", api_key="hunter3")
    await eventually(lambda: settings.api_key.reveal() == "hunter3")
    assert settings.user.reveal() == "u2"
    assert settings.generation == 1
    admin("DELETE", "secret/data/rotating")
    await eventually(lambda: any(isinstance(each, SecretLost) for each in seen))
    assert settings.api_key.reveal() == "hunter3"
    rotated = [each for each in seen if isinstance(each, SecretRotated)]
    assert [(each.version, each.fields) for each in rotated] == [("2", ("api_key", "user"))]
    assert "hunter" not in repr(seen)
    await configuration.stop()
    await store.aclose()
    end()


@pytest.mark.asyncio
async def test_an_approle_logs_in_renews_and_gives_its_token_back(admin, bao_server):
    """Its token is refused after the end, and a policy that forbids is told from a dead token."""
    admin("PUT", "sys/policies/acl/reader", policy='path "secret/data/allowed" { capabilities = ["read"] }')
    if "approle/" not in admin("GET", "sys/auth")["data"]:
        admin("POST", "sys/auth/approle", type="approle")
    admin("POST", "auth/approle/role/reader", token_policies="reader", token_ttl="6s", token_max_ttl="60s")
    role_id = admin("GET", "auth/approle/role/reader/role-id")["data"]["role_id"]
    secret_id = admin("POST", "auth/approle/role/reader/secret-id")["data"]["secret_id"]
    admin.write("allowed", a="1")
    admin.write("forbidden", a="1")
    vault = VaultSecrets(VaultOptions(url=bao_server.url, role_id=role_id, secret_id=Secret(secret_id)))
    assert (await vault.read("secret/allowed")).values["a"] == Secret("1")
    first = vault._token
    with pytest.raises(SecretError, match="needs 'read' on 'secret/data/forbidden'"):
        await vault.read("secret/forbidden")
    assert vault._token == first

    async def outlived():
        await vault.read("secret/allowed")
        data = admin("POST", "auth/token/lookup", token=vault._token.reveal())["data"]
        return data["last_renewal"] if vault._token == first and "last_renewal" in data else None

    # From two thirds of its life on: two seconds are left then, also on a machine that stands still for one.
    await eventually(outlived, timeout=20, what="a renewal", every=0.2)
    admin("POST", "auth/token/revoke", token=first.reveal())
    assert (await vault.read("secret/allowed")).values["a"] == Secret("1")
    second = vault._token
    assert second != first
    await vault.aclose()
    with pytest.raises(httpx2.HTTPStatusError):
        admin("POST", "auth/token/lookup", token=second.reveal())


@pytest.mark.asyncio
async def test_a_sealed_or_stopped_server_takes_no_secret_away(own_bao_server):
    """Sealed at run time: the last good goes on; stopped: likewise."""
    admin = Admin(own_bao_server)
    admin.write("kept", a="hunter2")
    store = SecretStore(
        VaultSecrets(VaultOptions(url=own_bao_server.url, token=Secret(own_bao_server.token), poll=0.05))
    )
    kept = store.secret("vault:secret/kept#a")
    await kept.load()
    admin("PUT", "sys/seal")
    await eventually(lambda: "unseal it" in store.describe()["vault:secret/kept"]["detail"])
    assert kept.reveal() == "hunter2"
    own_bao_server.kill()
    await eventually(lambda: "does not answer" in store.describe()["vault:secret/kept"]["detail"])
    assert kept.reveal() == "hunter2"
    await store.aclose()
    admin.http.close()
