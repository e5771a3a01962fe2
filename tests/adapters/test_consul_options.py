"""How a Consul agent is reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from chassis.adapters.consul import ConsulAPI, ConsulOptions
from chassis.core import ConfigError


def test_without_any_variable_the_local_agent_is_meant() -> None:
    assert ConsulOptions.from_environment({}) == ConsulOptions(url="http://127.0.0.1:8500")


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"CONSUL_HTTP_ADDR": "consul:8500"}, "http://consul:8500"),
        ({"CONSUL_HTTP_ADDR": "consul"}, "http://consul"),
        ({"CONSUL_HTTP_ADDR": "[::1]:8500"}, "http://[::1]:8500"),
        ({"CONSUL_HTTP_ADDR": "http://consul:8500/"}, "http://consul:8500"),
        ({"CONSUL_HTTP_ADDR": "https://consul:8501", "CONSUL_HTTP_SSL": "false"}, "https://consul:8501"),
        ({"CONSUL_HTTP_ADDR": "consul:8501", "CONSUL_HTTP_SSL": "true"}, "https://consul:8501"),
        ({"CONSUL_HTTP_SSL": "1"}, "https://127.0.0.1:8500"),
    ],
)
def test_the_address_is_taken_with_and_without_a_scheme(environment: dict[str, str], url: str) -> None:
    assert ConsulOptions.from_environment(environment).url == url


def test_every_other_variable_is_honoured() -> None:
    options = ConsulOptions.from_environment(
        {
            "CONSUL_HTTP_TOKEN": "s3cret",
            "CONSUL_HTTP_AUTH": "me:word",
            "CONSUL_CACERT": "/ca.pem",
            "CONSUL_CLIENT_CERT": "/cert.pem",
            "CONSUL_CLIENT_KEY": "/key.pem",
            "CONSUL_HTTP_SSL_VERIFY": "false",
            "CONSUL_TLS_SERVER_NAME": "server.dc1.consul",
        }
    )
    assert options == ConsulOptions(
        token="s3cret",
        auth="me:word",
        ca="/ca.pem",
        certificate="/cert.pem",
        key="/key.pem",
        verify=False,
        tls_server_name="server.dc1.consul",
    )
    assert ConsulOptions.from_environment({"CONSUL_CAPATH": "/certs"}).ca == "/certs"


def test_a_token_file_wins_over_a_token_as_in_consuls_own_tools() -> None:
    options = ConsulOptions.from_environment({"CONSUL_HTTP_TOKEN": "t", "CONSUL_HTTP_TOKEN_FILE": "/t"})
    assert (options.token, options.token_file) == ("", "/t")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"CONSUL_HTTP_ADDR": "unix:///run/consul.sock"}, "is a unix socket, which is not supported"),
        ({"CONSUL_HTTP_ADDR": "consul:port"}, "'http://consul:port' cannot be parsed"),
        ({"CONSUL_HTTP_ADDR": "ftp://consul"}, "'ftp://consul' is not the address of an agent"),
        ({"CONSUL_HTTP_ADDR": "http://"}, "is not the address of an agent"),
        ({"CONSUL_HTTP_ADDR": "consul:0"}, "is not the address of an agent"),
        ({"CONSUL_HTTP_ADDR": "http://consul:8500/?a=b"}, "holds more than an address"),
        ({"CONSUL_HTTP_ADDR": "http://con sul:8500"}, "holds more than an address"),
        ({"CONSUL_HTTP_SSL": "yes"}, "CONSUL_HTTP_SSL: 'yes' is neither true nor false"),
        ({"CONSUL_HTTP_SSL_VERIFY": "no"}, "CONSUL_HTTP_SSL_VERIFY: 'no' is neither true nor false"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ConsulOptions.from_environment(environment)
    assert message in str(caught.value)
    assert caught.value.setting == next(iter(environment))
    assert caught.value.origin == "the environment"
    assert caught.value.remedy


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="url: the address holds a user name or password") as caught:
        ConsulOptions(url="http://me:hunter2@consul:8500")
    assert "hunter2" not in str(caught.value)


def test_a_token_is_never_shown() -> None:
    options = ConsulOptions(token="s3cret")
    assert "s3cret" not in repr(options)
    assert "s3cret" not in repr(ConsulAPI(options))


@pytest.mark.parametrize("token", ["abc\n", "täken"])
def test_a_token_no_header_can_carry_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(ConfigError, match="token holds characters") as caught:
        ConsulOptions(token=token)
    assert token not in str(caught.value)


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="both token and token_file"):
        ConsulOptions(token="t", token_file="/t")


@pytest.mark.parametrize("field", ["timeout", "connect_timeout"])
def test_time_limits_are_durations(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        ConsulOptions(**{field: 0})  # type: ignore[arg-type]


def test_the_environment_is_the_default_of_the_api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.9:1234")
    assert ConsulAPI().options.url == "http://127.0.0.9:1234"
