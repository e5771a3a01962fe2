"""Settings from Consul's KV store, on a real Consul."""

import asyncio
import time
import uuid

import pytest
from pydantic import BaseModel

from chassis.adapters.consul import ConsulAPI, ConsulOptions
from chassis.adapters.consul._kv import ConsulKV
from chassis.background import background
from chassis.config import Absent, ConfigRejected, Configuration, Found, Unreachable
from chassis.core import ConfigError, events
from tests.support.waiting import at_best_async, eventually

pytestmark = pytest.mark.integration


class Prices(BaseModel):
    price: float = 1.0
    currency: str = "EUR"


@pytest.fixture
def key():
    return f"config/{uuid.uuid4().hex}/data"


@pytest.fixture
def seen():
    found = []
    end = events.subscribe(found.append)
    found.clear()  # what earlier tests left behind
    yield found
    end()


async def close(api):
    """Its connections in this loop and in the background's."""
    await api.aclose()
    await background.run(api.aclose, name="test")


def configured(api, *keys):
    configuration = Configuration("prices", environment={})
    for i, each in enumerate(keys):
        configuration.add(ConsulKV(api, each, shared=i == 0 and len(keys) > 1))
    return configuration


@pytest.mark.asyncio
async def test_a_changed_value_is_seen_in_milliseconds_without_restart(consul_server, key):
    """Well within the second that is promised; the origin names the key."""
    api = ConsulAPI(ConsulOptions(url=consul_server.url))
    await api.kv_put(key, "price = 2")
    configuration = configured(api, key)
    settings = configuration.settings(Prices)
    await configuration.start()
    assert settings.price == 2.0
    assert settings.origin("price") == f"consul kv {key}"
    prices = iter((3, 4, 5))

    async def change():
        price = next(prices)
        if price > 3:
            await asyncio.sleep(2.0)  # after a burst a watcher asks once a second
        began = time.monotonic()
        await api.kv_put(key, f"price = {price}")
        await eventually(lambda: settings.price == price, every=0.001)
        return time.monotonic() - began

    await at_best_async(change, 0.5, "the change")
    await configuration.stop()
    await close(api)


@pytest.mark.asyncio
async def test_a_bad_value_and_a_deleted_key_keep_the_last_good(consul_server, key, seen):
    """Rejected, vanished, and healed by the next good one."""
    api = ConsulAPI(ConsulOptions(url=consul_server.url))
    await api.kv_put(key, "price = 2")
    configuration = configured(api, key)
    settings = configuration.settings(Prices)
    await configuration.start()
    assert settings.price == 2.0
    await api.kv_put(key, "price = 'dear'")
    await eventually(lambda: any(isinstance(each, ConfigRejected) for each in seen))
    assert settings.price == 2.0

    def state():
        return configuration.describe()["sources"][f"consul kv {key}"]["state"]

    await api.kv_delete(key)
    await eventually(lambda: state() == "vanished")
    assert settings.price == 2.0
    await api.kv_put(key, "price = 4")
    await eventually(lambda: settings.price == 4.0)
    await eventually(lambda: state() == "ready", what="the source to be well")
    await configuration.stop()
    await close(api)


@pytest.mark.asyncio
async def test_the_services_own_document_lies_over_the_shared_one(consul_server, key):
    """``config/application/data`` beneath ``config/<service>/data``; a key made later is seen."""
    shared = f"{key}-shared"
    api = ConsulAPI(ConsulOptions(url=consul_server.url))
    await api.kv_put(shared, "price = 2\ncurrency = 'CHF'\nother_services = 1")
    configuration = configured(api, shared, key)
    settings = configuration.settings(Prices)
    await configuration.start()
    assert (settings.price, settings.currency) == (2.0, "CHF")
    await api.kv_put(key, "price = 3")
    await eventually(lambda: settings.price == 3.0)
    assert settings.currency == "CHF"
    await configuration.stop()
    await close(api)


@pytest.mark.asyncio
async def test_case_14_a_consul_that_is_killed_and_comes_back_blank_keeps_the_last_good(
    own_consul_server, key
):
    """Down, then blank: nothing is lost; a new value with a lower index is seen."""
    api = ConsulAPI(ConsulOptions(url=own_consul_server.url))
    for price in range(1, 6):
        await api.kv_put(key, f"price = {price}")
    configuration = configured(api, key)
    settings = configuration.settings(Prices)
    await configuration.start()
    assert settings.price == 5.0

    def state():
        return configuration.describe()["sources"][f"consul kv {key}"]["state"]

    own_consul_server.kill()
    await eventually(lambda: state() == "unreachable")
    assert settings.price == 5.0
    own_consul_server.start()
    await eventually(lambda: state() == "vanished", timeout=30)
    assert settings.price == 5.0
    await api.kv_put(key, "price = 6")
    await eventually(lambda: settings.price == 6.0, timeout=10)
    await configuration.stop()
    await close(api)


@pytest.mark.asyncio
async def test_a_consul_that_is_not_there_at_start_comes_in_later(own_consul_server, key):
    """The service starts with what it has."""
    api = ConsulAPI(ConsulOptions(url=own_consul_server.url))
    own_consul_server.kill()
    configuration = Configuration("prices", environment={}, patience=0.2)
    configuration.add(ConsulKV(api, key))
    settings = configuration.settings(Prices)
    with pytest.raises(ConfigError, match="did not answer within"):
        await configuration.start(required=True)
    await configuration.start()
    assert settings.price == 1.0
    own_consul_server.start()
    await api.kv_put(key, "price = 2")
    await eventually(lambda: settings.price == 2.0, timeout=30)
    await configuration.stop()
    await close(api)


@pytest.mark.asyncio
async def test_the_readings_themselves(consul_server, key):
    """Absent, then found, then found anew: one for each state."""
    api = ConsulAPI(ConsulOptions(url=consul_server.url))
    readings = ConsulKV(api, key, wait=5).readings()
    assert await anext(readings) == Absent()
    await api.kv_put(key, "a = 1")
    assert await anext(readings) == Found(b"a = 1")
    await api.kv_put(key, "a = 2")
    assert await anext(readings) == Found(b"a = 2")
    await readings.aclose()
    nowhere = ConsulAPI(ConsulOptions(url="http://127.0.0.1:1"))
    gone = ConsulKV(nowhere, key).readings()
    first = await anext(gone)
    assert isinstance(first, Unreachable)
    assert "did not answer" in first.reason
    await gone.aclose()
    await nowhere.aclose()
    await close(api)


@pytest.mark.parametrize("options", [{"wait": 0}, {"max_stale": 0}])
def test_bad_times_are_refused(options):
    """At construction."""
    with pytest.raises(ConfigError):
        ConsulKV(ConsulAPI(ConsulOptions()), "config/x/data", **options)
