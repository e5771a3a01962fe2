"""References, files and the store that follows them."""

import asyncio
import os
import threading

import pytest

from chassis.background import background
from chassis.config import Configuration
from chassis.core import ConfigError, events
from chassis.secrets import (
    FileSecrets,
    Secret,
    SecretError,
    SecretLost,
    SecretRestored,
    SecretRotated,
    SecretStore,
    SecretVersion,
)
from chassis.secrets._reference import Reference, parse_reference
from tests.support.waiting import eventually, wait_until


class Safe:
    """A remote store in memory."""

    scheme = "safe"
    remote = True

    def __init__(self, poll=0.02, **places):
        self.poll = poll
        self.places = places
        self.reads = 0
        self.number = 0

    async def aclose(self):
        self.closed = background.here()

    async def read(self, path):
        self.reads += 1
        await asyncio.sleep(0)
        values = self.places.get(path)
        if values is None:
            raise SecretError(f"safe:{path} is not there", permanent=True)
        if isinstance(values, SecretError):
            raise values
        return SecretVersion(
            values={name: Secret(each) for name, each in values.items()}, version=str(self.number)
        )


@pytest.fixture
def seen():
    found = []
    end = events.subscribe(found.append)
    found.clear()  # what earlier tests left behind
    yield found
    end()


@pytest.fixture
def store():
    made = SecretStore(FileSecrets(poll=0.02))
    yield made
    made.close()


def of(kind, seen):
    return [each for each in seen if isinstance(each, kind)]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("file:/run/secrets/db", Reference("file", "/run/secrets/db")),
        ("file:a#b", Reference("file", "a#b")),
        ("vault:secret/payments#api_key", Reference("vault", "secret/payments", "api_key")),
        ("vault:secret/payments", Reference("vault", "secret/payments")),
        ("vault:secret/p#a#b", Reference("vault", "secret/p", "a#b")),
    ],
)
def test_a_reference_names_store_path_and_field(text, parsed):
    """It prints as it was written."""
    assert parse_reference(text) == parsed
    assert str(parsed) == text


@pytest.mark.parametrize("text", ["hunter2", "", "file:", ":x", "FILE:x", "vault:#a"])
def test_what_is_no_reference_is_refused_without_repeating_it(text):
    """It may be a secret put there by mistake."""
    with pytest.raises(ConfigError) as raised:
        parse_reference(text)
    assert "hunter2" not in str(raised.value)
    assert raised.value.remedy


def test_the_store_knows_a_reference_when_it_sees_one():
    """``file:`` and ``vault:`` always, others by their resolver; a text with a colon is none."""
    store = SecretStore(Safe())
    assert [store.refers(each) for each in ("file:x", "vault:x", "safe:x", "other:x", "a b:c", "x")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert [store.remote(each) for each in ("file:x", "vault:x", "safe:x")] == [False, True, True]
    assert "safe" in repr(store)


@pytest.mark.asyncio
async def test_what_nothing_resolves_says_how_to_configure_it():
    """And two resolvers of one scheme are a mistake."""
    store = SecretStore(Safe())
    with pytest.raises(ConfigError, match="set BAO_ADDR or VAULT_ADDR"):
        await store.get("vault:secret/x#y")
    with pytest.raises(ConfigError, match="two resolvers"):
        store.add(Safe())


@pytest.mark.asyncio
async def test_a_field_is_chosen_by_name_and_may_be_left_out_where_there_is_one():
    """What is wrong is said with the names of the fields, never a value."""
    store = SecretStore(Safe(one={"a": "hunter2"}, two={"a": "hunter2", "b": "hunter3"}))
    assert (await store.get("safe:one")).reveal() == "hunter2"
    assert (await store.get("safe:two#b")).reveal() == "hunter3"
    with pytest.raises(SecretError, match="no field 'c'; its fields are: a, b") as raised:
        await store.get("safe:two#c")
    assert raised.value.permanent
    with pytest.raises(SecretError, match="several fields"):
        await store.get("safe:two")


@pytest.mark.asyncio
async def test_the_fields_of_one_secret_are_read_together():
    """User and password of one version, by one read; also by many readers at once."""
    safe = Safe(db={"user": "u", "password": "p"})
    store = SecretStore(safe)
    await asyncio.gather(*[store.get(f"safe:db#{name}") for name in ("user", "password") * 20])
    assert safe.reads == 1


@pytest.mark.asyncio
async def test_what_is_not_followed_is_read_anew():
    """A second later: memory serves only what is followed."""
    safe = Safe(db={"a": "1"})
    store = SecretStore(safe)
    await store.get("safe:db")
    store._places["safe:db"].read_at -= 2
    safe.places["db"] = {"a": "2"}
    assert (await store.get("safe:db")).reveal() == "2"
    store._places["safe:db"].read_at -= 2
    safe.places["db"] = SecretError("down", permanent=False)
    assert (await store.get("safe:db")).reveal() == "2"


def test_a_rotated_file_is_seen_without_restart(store, tmp_path, seen):
    """The handle gives the new value; the event names place and version and no value."""
    file = tmp_path / "db"
    file.write_text("hunter2\n")
    secret = store.secret(f"file:{file}")
    assert "hunter2" not in repr(secret)
    assert secret.reveal() == "hunter2"
    first = secret.version
    file.write_text("hunter3\n")
    os.utime(file, ns=(1, 1))
    wait_until(lambda: secret.reveal() == "hunter3")
    assert secret.version == "1" != first
    (event,) = of(SecretRotated, seen)
    assert (event.subject, event.version, event.fields) == (f"file:{file}", "1", ("",))
    assert "hunter" not in repr(seen) + repr(store.describe())


def test_a_secret_that_cannot_be_read_any_more_stays(store, tmp_path, seen):
    """Gone, then empty while it is being written, then back: told once, and healed."""
    file = tmp_path / "db"
    file.write_text("hunter2")
    secret = store.secret(f"file:{file}")
    assert secret.reveal() == "hunter2"
    file.unlink()
    wait_until(lambda: of(SecretLost, seen))
    assert store.describe()[f"file:{file}"]["bad"]
    file.write_text("")
    wait_until(lambda: "is empty" in store.describe()[f"file:{file}"]["detail"])
    assert secret.reveal() == "hunter2"
    file.write_text("hunter3")
    wait_until(lambda: secret.reveal() == "hunter3")
    assert len(of(SecretLost, seen)) == len(of(SecretRestored, seen)) == 1
    assert not store.describe()[f"file:{file}"]["bad"]


@pytest.mark.asyncio
async def test_files_are_read_whole_without_their_last_newline(tmp_path):
    """Relative to the directory; what is no secret says why."""
    (tmp_path / "a").write_bytes(b" with space \r\n\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"x" * (2 << 20))
    (tmp_path / "empty").write_text("\n")
    files = FileSecrets(tmp_path)
    assert (await files.read("a")).values[""].reveal() == " with space "
    for name, permanent, why in (
        ("none", True, "No such file"),
        ("binary", True, "not UTF-8"),
        ("large", True, "larger than a secret"),
        ("empty", False, "is empty"),
    ):
        with pytest.raises(SecretError, match=why) as raised:
            await files.read(name)
        assert raised.value.permanent is permanent
    with pytest.raises(ConfigError):
        FileSecrets(poll=0)


def test_followers_are_told_and_the_last_one_ends_the_reading():
    """Closing twice does nothing; a rewrite with the same values tells nobody."""
    safe = Safe(db={"a": "1"})
    store = SecretStore(safe)
    told = []
    first = store.subscribe("safe:db", lambda: told.append(1))
    second = store.subscribe("safe:db", lambda: told.append(2))
    wait_until(lambda: safe.reads > 2)
    assert told == []
    safe.number = 7
    before = safe.reads
    wait_until(lambda: safe.reads > before + 2)
    assert told == []
    safe.places["db"] = {"a": "2"}
    wait_until(lambda: told == [1, 2])
    first.close()
    first.close()
    safe.places["db"] = {"a": "3"}
    wait_until(lambda: told == [1, 2, 2])
    second.close()
    wait_until(lambda: store._places["safe:db"].job is None)

    async def settled():
        before = safe.reads
        await asyncio.sleep(0.1)
        return safe.reads == before

    assert background.start(settled, name="test").result(5)


@pytest.mark.asyncio
async def test_a_handle_may_be_loaded_without_blocking_the_loop():
    """Afterwards it is followed, and reading it asks nobody."""
    safe = Safe(db={"a": "1"})
    store = SecretStore(safe)
    secret = store.secret("safe:db#a")
    await secret.load()
    assert secret.current == Secret("1")
    safe.places["db"] = {"a": "2"}
    await eventually(lambda: secret.reveal() == "2")
    await store.aclose()
    assert safe.closed


def test_a_handle_first_read_on_the_background_thread_is_refused():
    """It would wait for itself."""
    secret = SecretStore(Safe(db={"a": "1"})).secret("safe:db")

    async def read():
        return secret.current

    with pytest.raises(ConfigError, match=r"await secret\.load\(\)"):
        background.start(read, name="test").result(5)


def test_many_threads_read_one_handle():
    """One read serves them all."""
    safe = Safe(poll=10, db={"a": "1"})
    store = SecretStore(safe)
    secret = store.secret("safe:db")
    found = []
    threads = [threading.Thread(target=lambda: found.append(secret.reveal())) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == ["1"] * 8
    assert safe.reads == 1
    store.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_case_52_after_a_fork_the_child_follows_for_itself(store, tmp_path):
    """A server that loads the application before it forks."""
    file, done = tmp_path / "db", tmp_path / "done"
    file.write_text("one")
    secret = store.secret(f"file:{file}")
    assert secret.reveal() == "one"
    child = os.fork()
    if child == 0:  # pragma: no cover - coverage is not collected in a forked child that exits so
        try:
            assert secret.reveal() == "one"
            file.write_text("two")
            wait_until(lambda: secret.reveal() == "two")
            done.write_text("yes")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert done.read_text() == "yes"


def test_settings_follow_a_secret_through_the_real_store(store, tmp_path):
    """Configuration and store together: a docker secret named by ``..._FILE`` rotates in place."""
    from pydantic import BaseModel

    class Invoices(BaseModel):
        password: Secret

    file = tmp_path / "password"
    file.write_text("hunter2")
    configuration = Configuration(
        "invoices", environment={"INVOICES_PASSWORD_FILE": str(file)}, secrets=store, interval=0.02
    )
    settings = configuration.settings(Invoices)
    assert settings.password == Secret("hunter2")
    assert settings.origin("password") == "environment INVOICES_PASSWORD_FILE"
    file.write_text("hunter3")
    wait_until(lambda: settings.password == Secret("hunter3"))
    configuration.stop_sync()
