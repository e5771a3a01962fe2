"""The secret store's adapter against a scripted server: tokens, refusals, and nothing shown."""

import json
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import pytest_asyncio

from chassis.adapters.vault import VaultOptions, VaultSecrets
from chassis.core import ConfigError
from chassis.secrets import Secret, SecretError

LOOKUP = "GET /v1/auth/token/lookup-self"
RENEW = "POST /v1/auth/token/renew-self"
LOGIN = "POST /v1/auth/approle/login"
REVOKE = "POST /v1/auth/token/revoke-self"
READ = "GET /v1/secret/data/payments"

DEAD = (403, {"errors": ["permission denied"]})
FORBIDDEN = (403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]})
SEALED = (503, {"errors": ["Vault is sealed"]})


def secret(version=1, **values):
    return 200, {"data": {"data": values, "metadata": {"version": version, "destroyed": False}}}


class Server:
    """Answers as told; remembers what it was asked, with which token."""

    def __init__(self):
        self.asked = []
        self.headers = []
        self.bodies = []
        self.good = {"t-1"}
        self.logins = 0
        self.ttl = 3600
        self.renewable = True
        self.says = {READ: secret(api_key="hunter2")}
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                length = int(self.headers.get("content-length") or 0)
                script.bodies.append(json.loads(self.rfile.read(length) or b"null"))
                script.headers.append(self.headers)
                status, body = script.answer(f"{self.command} {self.path}", self.headers.get("x-vault-token"))
                content = json.dumps(body).encode() if body is not None else b""
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = answer

            def log_message(self, *arguments):
                pass

        class Http(ThreadingHTTPServer):
            request_queue_size = 64

        self.http = Http(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, what, token):
        self.asked.append(what)
        if what in self.says and what != READ:
            return self.says[what]
        if what == LOGIN:
            self.logins += 1
            fresh = f"login-{self.logins}"
            self.good = {fresh}
            return 200, {
                "auth": {"client_token": fresh, "lease_duration": self.ttl, "renewable": self.renewable}
            }
        if token not in self.good:
            return DEAD
        if what == LOOKUP:
            return 200, {"data": {"ttl": self.ttl, "renewable": self.renewable}}
        if what == RENEW:
            return 200, {"auth": {"client_token": token, "lease_duration": self.ttl, "renewable": True}}
        return self.says.get(what, (404, {"errors": []}))

    def count(self, what):
        return self.asked.count(what)

    def close(self):
        self.http.shutdown()
        self.http.server_close()


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def clock():
    return Clock()


@pytest_asyncio.fixture
async def vault(server, clock):
    """Known by a token somebody gave."""
    made = VaultSecrets(VaultOptions(url=server.url, token=Secret("t-1")), clock=clock)
    yield made
    await made.aclose()


@pytest_asyncio.fixture
async def approle(server, clock):
    """Known by an AppRole."""
    options = VaultOptions(url=server.url, role_id="role", secret_id=Secret("s3cret-id"))
    made = VaultSecrets(options, clock=clock)
    yield made
    await made.aclose()


@pytest.mark.asyncio
async def test_a_secret_is_read_with_its_version(vault, server):
    """Texts as they are, other values as JSON."""
    server.says[READ] = secret(7, api_key="hunter2", port=80, flag=True, nested={"a": 1})
    found = await vault.read("secret/payments")
    assert found.version == "7"
    assert {name: each.reveal() for name, each in found.values.items()} == {
        "api_key": "hunter2",
        "port": "80",
        "flag": "true",
        "nested": '{"a": 1}',
    }
    assert "hunter2" not in repr(found)


@pytest.mark.asyncio
async def test_case_51_a_number_that_lost_its_digits_is_refused(vault, server):
    """Better no secret than a wrong one; the remedy is to store a text."""
    server.says[READ] = secret(big=2**53 + 1)
    with pytest.raises(SecretError, match="payments#big is a number too large.*store it as a text"):
        await vault.read("secret/payments")
    server.says[READ] = secret(big=2**53)
    assert (await vault.read("secret/payments")).values["big"].reveal() == str(2**53)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"errors": []}, "there is no such secret.*'secret' is a KV version 2 mount"),
        (
            {"errors": ['no handler for route "secret/data/payments".']},
            "nothing is mounted at 'secret'.*namespace",
        ),
        (
            {"data": {"data": None, "metadata": {"version": 3, "deletion_time": "2024", "destroyed": False}}},
            "version 3 was deleted; undelete",
        ),
        ({"data": {"data": None, "metadata": {"version": 3, "destroyed": True}}}, "version 3 was destroyed"),
        (None, "there is no such secret"),
    ],
)
@pytest.mark.asyncio
async def test_case_44_and_49_a_404_tells_which_of_its_meanings_it_has(vault, server, body, told):
    """Missing, mounted elsewhere, deleted, destroyed."""
    server.says[READ] = (404, body)
    with pytest.raises(SecretError, match=told) as raised:
        await vault.read("secret/payments")
    assert raised.value.permanent


@pytest.mark.asyncio
async def test_case_35_a_policy_that_forbids_is_no_reason_to_log_in(approle, server):
    """The error names the path the policy needs."""
    server.says[READ] = FORBIDDEN
    with pytest.raises(SecretError, match="needs 'read' on 'secret/data/payments'") as raised:
        await approle.read("secret/payments")
    assert raised.value.permanent
    assert server.logins == 1


@pytest.mark.asyncio
async def test_case_34_a_revoked_token_means_one_login_for_all_and_every_read_goes_through(approle, server):
    """Twenty readers find out at once."""
    import asyncio

    await approle.read("secret/payments")
    server.good = set()
    found = await asyncio.gather(*[approle.read("secret/payments") for _ in range(20)])
    assert len(found) == 20
    assert server.logins == 2


@pytest.mark.asyncio
async def test_a_token_is_renewed_at_two_thirds_and_not_before(approle, server, clock):
    """By the session's own clock."""
    await approle.read("secret/payments")
    clock.now += 2000
    await approle.read("secret/payments")
    assert server.count(RENEW) == 0
    clock.now += 700
    await approle.read("secret/payments")
    assert (server.count(RENEW), server.logins) == (1, 1)


@pytest.mark.asyncio
async def test_case_32_a_renewal_cut_short_is_followed_by_a_login_before_the_read(approle, server, clock):
    """No read ever fails at a token's greatest age."""
    await approle.read("secret/payments")
    clock.now += 2700
    server.says[RENEW] = (200, {"auth": {"client_token": "login-1", "lease_duration": 60, "renewable": True}})
    await approle.read("secret/payments")
    assert server.logins == 2


@pytest.mark.parametrize(("status", "logins"), [(503, 1), (429, 1), (403, 2), (400, 2)])
@pytest.mark.asyncio
async def test_case_33_a_renewal_that_fails_costs_no_read(approle, server, clock, status, logins):
    """A server in trouble: the token goes on. A token it refuses to renew: a login."""
    await approle.read("secret/payments")
    clock.now += 2700
    server.says[RENEW] = (status, {"errors": ["x"]})
    await approle.read("secret/payments")
    await approle.read("secret/payments")
    assert server.logins == logins
    assert server.count(RENEW) == 1


@pytest.mark.asyncio
async def test_case_38_a_refused_login_is_not_tried_again_at_once(approle, server, clock):
    """Five seconds at least; the error says so, and never shows the secret id."""
    server.says[LOGIN] = (400, {"errors": ["invalid role or secret ID"]})
    with pytest.raises(SecretError, match="answered 400 to the login of AppRole 'role'") as raised:
        await approle.read("secret/payments")
    assert raised.value.permanent
    with pytest.raises(SecretError, match=r"invalid role or secret ID; tried again in \d s") as raised:
        await approle.read("secret/payments")
    assert "s3cret-id" not in "".join(traceback.format_exception(raised.value))
    assert server.count(LOGIN) == 1
    clock.now += 5.1
    del server.says[LOGIN]
    await approle.read("secret/payments")
    assert server.logins == 1


@pytest.mark.parametrize("answer", [SEALED, (500, None), (429, {"errors": ["rate limit quota exceeded"]})])
@pytest.mark.asyncio
async def test_case_36_and_37_a_store_in_trouble_passes_by_itself(vault, server, answer):
    """Sealed, failing, limited: temporary; sealed says what to do."""
    server.says[READ] = answer
    with pytest.raises(SecretError) as raised:
        await vault.read("secret/payments")
    assert not raised.value.permanent
    assert ("unseal it" in str(raised.value)) is (answer is SEALED)


@pytest.mark.asyncio
async def test_a_store_that_is_not_there_is_asked_less_and_less(clock):
    """The error names the address; the token is in no part of it."""
    vault = VaultSecrets(VaultOptions(url="http://127.0.0.1:1", token=Secret("s3cret-token")), clock=clock)
    with pytest.raises(SecretError, match=r"http://127\.0\.0\.1:1 does not answer") as raised:
        await vault.read("secret/payments")
    assert not raised.value.permanent
    assert "s3cret-token" not in "".join(traceback.format_exception(raised.value))
    assert raised.value.__cause__ is None
    with pytest.raises(SecretError, match="tried again in"):
        await vault.read("secret/payments")
    await vault.aclose()


@pytest.mark.asyncio
async def test_a_wrong_token_says_so(server, clock):
    """And no token at all says how to give one."""
    wrong = VaultSecrets(VaultOptions(url=server.url, token=Secret("s3cret-token")), clock=clock)
    with pytest.raises(SecretError, match="does not know the token") as raised:
        await wrong.read("secret/payments")
    assert raised.value.permanent
    assert "s3cret-token" not in str(raised.value) + repr(wrong) + repr(wrong.options)
    await wrong.aclose()
    none = VaultSecrets(VaultOptions(url=server.url), clock=clock)
    with pytest.raises(SecretError, match="set BAO_TOKEN"):
        await none.read("secret/payments")
    await none.aclose()


@pytest.mark.asyncio
async def test_a_token_file_is_read_again_when_its_token_is_dead(server, clock, tmp_path):
    """An agent wrote a new one."""
    file = tmp_path / "token"
    file.write_text("t-1\n")
    vault = VaultSecrets(VaultOptions(url=server.url, token_file=str(file)), clock=clock)
    await vault.read("secret/payments")
    server.good = {"t-2"}
    file.write_text("t-2\n")
    await vault.read("secret/payments")
    file.unlink()
    server.good = {"t-3"}
    with pytest.raises(SecretError, match="token file .* cannot be read: No such file"):
        await vault.read("secret/payments")
    await vault.aclose()


@pytest.mark.asyncio
async def test_case_47_only_a_token_of_our_own_is_revoked(server, clock, vault, approle):
    """And when the server is gone, closing is quiet."""
    await vault.read("secret/payments")
    await vault.aclose()
    assert server.count(REVOKE) == 0
    server.good.add("login-1")
    await approle.read("secret/payments")
    await approle.aclose()
    assert server.count(REVOKE) == 1
    await approle.aclose()
    assert server.count(REVOKE) == 1


@pytest.mark.asyncio
async def test_case_46_closing_does_not_wait_for_a_store_that_is_down(server, clock):
    """The token will expire by itself."""
    vault = VaultSecrets(VaultOptions(url=server.url, role_id="role"), clock=clock)
    await vault.read("secret/payments")
    server.close()
    await vault.aclose()


@pytest.mark.asyncio
async def test_namespace_secret_id_file_and_mount_reach_the_server(server, clock, tmp_path):
    """Each in its place on the wire, and the token in its header alone."""
    file = tmp_path / "secret-id"
    file.write_text("from-file\n")
    options = VaultOptions(
        url=server.url,
        role_id="role",
        secret_id_file=str(file),
        approle_mount="teams/roles",
        namespace="team",
    )
    server.says["POST /v1/auth/teams/roles/login"] = (
        200,
        {"auth": {"client_token": "t-1", "lease_duration": 60, "renewable": True}},
    )
    vault = VaultSecrets(options, clock=clock)
    await vault.read("secret/payments")
    await vault.aclose()
    assert server.bodies[0] == {"role_id": "role", "secret_id": "from-file"}
    assert {each["x-vault-namespace"] for each in server.headers} == {"team"}
    assert not any("t-1" in each for each in server.asked)


@pytest.mark.parametrize("path", ["secret", "secret/", "/"])
@pytest.mark.asyncio
async def test_a_path_without_a_mount_is_refused_before_it_is_asked(vault, server, path):
    """With the form to write."""
    with pytest.raises(SecretError, match="write vault:mount/path"):
        await vault.read(path)
    assert server.asked == []


@pytest.mark.asyncio
async def test_paths_are_quoted(vault, server):
    """Whatever a path holds, it stays one path."""
    server.says["GET /v1/secret/data/a%20b/%C3%BC%3Fx"] = secret(a="1")
    assert (await vault.read("secret/a b/ü?x")).values["a"] == Secret("1")


# ── options ──────────────────────────────────────────────────────────────────────────────────────


def test_the_servers_own_variables_are_honoured_and_bao_wins(tmp_path):
    """Name by name."""
    options = VaultOptions.from_environment(
        {
            "BAO_ADDR": "http://bao:8200",
            "VAULT_ADDR": "http://vault:8200",
            "VAULT_TOKEN": "s3cret",
            "VAULT_NAMESPACE": "team",
            "BAO_CACERT": "/ca",
            "VAULT_CLIENT_CERT": "/cert",
            "VAULT_CLIENT_KEY": "/key",
            "VAULT_SKIP_VERIFY": "true",
            "BAO_TLS_SERVER_NAME": "name",
        }
    )
    assert options == VaultOptions(
        url="http://bao:8200",
        token=Secret("s3cret"),
        namespace="team",
        ca="/ca",
        certificate="/cert",
        key="/key",
        verify=False,
        tls_server_name="name",
    )
    assert "s3cret" not in repr(options)
    assert VaultOptions.from_environment({}) == VaultOptions()


def test_an_approle_wins_over_a_token_and_the_login_file_comes_last(tmp_path):
    """``~/.vault-token`` is where ``bao login`` leaves its token."""
    (tmp_path / ".vault-token").write_text("x")
    home = {"HOME": str(tmp_path)}
    read = VaultOptions.from_environment
    assert read(home).token_file == str(tmp_path / ".vault-token")
    assert read({**home, "BAO_TOKEN_FILE": "/t"}).token_file == "/t"
    assert read({**home, "BAO_TOKEN": "t"}) == VaultOptions(token=Secret("t"))
    assert read({**home, "BAO_TOKEN": "t", "VAULT_ROLE_ID": "r", "VAULT_SECRET_ID": "s"}) == VaultOptions(
        role_id="r", secret_id=Secret("s")
    )
    assert read({"BAO_ROLE_ID": "r", "BAO_SECRET_ID_FILE": "/s"}).secret_id_file == "/s"


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"url": "localhost:8200"}, "url"),
        ({"url": "http://a:b@c"}, "url"),
        ({"url": "http://a:99999"}, "url"),
        ({"url": "http://a/?x=1"}, "url"),
        ({"timeout": 0}, "timeout"),
        ({"connect_timeout": -1}, "connect_timeout"),
        ({"poll": 0}, "poll"),
        ({"token": Secret("a"), "token_file": "b"}, "token"),
        ({"token_file": "b", "role_id": "r"}, "token_file"),
        ({"secret_id": Secret("s")}, "role_id"),
        ({"role_id": "r", "secret_id": Secret("s"), "secret_id_file": "f"}, "secret_id"),
        ({"token": Secret("hunter2\n")}, "token"),
        ({"role_id": "r", "secret_id": Secret("hunter2\n")}, "secret_id"),
    ],
)
def test_bad_options_are_refused_with_the_setting_and_a_remedy(options, setting):
    """Never with the secret."""
    with pytest.raises(ConfigError) as raised:
        VaultOptions(**options)
    assert raised.value.setting == setting
    assert raised.value.remedy
    assert "hunter2" not in str(raised.value)


def test_a_variable_that_is_neither_true_nor_false_is_refused():
    """It names both forms of the variable."""
    with pytest.raises(ConfigError, match="BAO_SKIP_VERIFY or VAULT_SKIP_VERIFY"):
        VaultOptions.from_environment({"BAO_SKIP_VERIFY": "perhaps"})
