"""Environment variables and secret files, matched to settings: pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from chassis.config import ConfigErrors, Configuration
from chassis.config._layers import leaves, merge
from chassis.config._names import from_secret_files, from_variables, nearest, normalised
from chassis.config._schema import describe
from chassis.config._sources import parse, parse_assignments, parse_path
from chassis.core import ConfigError
from chassis.core.secrets import Secret


@dataclass(frozen=True, kw_only=True)
class Service:
    settings_shorthand: ClassVar[str] = "urls"
    urls: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    zone: str = ""


@dataclass(frozen=True, kw_only=True)
class Database:
    port: int = 1
    password: Secret | None = None


@dataclass(frozen=True, kw_only=True)
class Root:
    health_token: Secret | None = None
    timeout: float = 1.0
    key_file: str = ""
    db: Database = field(default_factory=Database)
    services: Mapping[str, Service] = field(default_factory=dict)
    policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


NODE = describe(Root)


def read(variables, *weaker, **options):
    errors: list[ConfigError] = []
    layer, unknown = from_variables(variables, NODE, "CHASSIS_", errors, weaker=weaker, **options)
    if errors:
        raise ConfigErrors(errors)
    return {path: leaf.value for path, leaf in layer.items()}, unknown


def test_two_underscores_go_one_table_deeper():
    """One belongs to the name; letter case does not count; other prefixes are not ours."""
    found, unknown = read(
        {"CHASSIS_HEALTH_TOKEN": "t", "chassis_db__Port": "2", "OTHER_DB__PORT": "3", "CHASSIS": "4"}
    )
    assert found == {("health_token",): "t", ("db", "port"): "2"}
    assert unknown == []


def test_a_leaf_names_its_variable():
    """The origin is what a person would look for."""
    layer, _ = from_variables({"CHASSIS_TIMEOUT": "2"}, NODE, "CHASSIS_", [])
    assert layer[("timeout",)].origin == "environment CHASSIS_TIMEOUT"


def test_a_text_for_a_service_is_its_urls_and_merges_with_a_table():
    """``CHASSIS_SERVICES__CATALOG=http://a:1,http://b:2`` beside tags from the file."""
    low = normalised(leaves({"services": {"catalog": {"tags": ["x"], "urls": ["old"]}}}, "file"), NODE, [])
    layer, _ = from_variables(
        {"CHASSIS_SERVICES__CATALOG": "http://a:1,http://b:2"}, NODE, "CHASSIS_", [], weaker=[low]
    )
    tree = merge([low, layer]).tree()
    assert tree == {"services": {"catalog": {"tags": ["x"], "urls": "http://a:1,http://b:2"}}} or tree == {
        "services": {"catalog": {"tags": ["x"], "urls": ["http://a:1", "http://b:2"]}}
    }


def test_an_underscore_means_the_dash_of_a_name_already_there():
    """ORDER_HISTORY is order-history if the file says so, else order_history."""
    low = leaves(
        {"services": {"order-history": {"zone": "a"}}, "policies": {"breaker:Payments": {"x": 1}}}, "f"
    )
    found, _ = read(
        {
            "CHASSIS_SERVICES__ORDER_HISTORY__ZONE": "b",
            "CHASSIS_POLICIES__BREAKER:PAYMENTS__FAILURE_RATE": "0.3",
            "CHASSIS_SERVICES__NEW_ONE__ZONE": "c",
        },
        low,
    )
    assert found == {
        ("services", "order-history", "zone"): "b",
        ("policies", "breaker:Payments", "failure_rate"): "0.3",
        ("services", "new_one", "zone"): "c",
    }


def test_case_28_an_unknown_variable_is_told_with_what_may_have_been_meant():
    """One underscore for two, a letter wrong; nothing close is not guessed at."""
    _, unknown = read(
        {
            "CHASSIS_DB_PORT": "1",
            "CHASSIS_TIMOUT": "1",
            "CHASSIS_ZZZ": "1",
            "CHASSIS_DB__PORT__X": "1",
            "CHASSIS___": "1",
        }
    )
    assert {each.name: each.suggestion for each in unknown} == {
        "CHASSIS_DB_PORT": "CHASSIS_DB__PORT",
        "CHASSIS_TIMOUT": "CHASSIS_TIMEOUT",
        "CHASSIS_ZZZ": None,
        "CHASSIS_DB__PORT__X": "CHASSIS_DB__PORT",
        "CHASSIS___": None,
    }
    assert "did you mean CHASSIS_DB__PORT?" in str(unknown[1].error()) + str(unknown[0].error())


def test_names_that_others_read_are_theirs():
    """``known`` names are neither used nor unknown."""
    assert read({"CHASSIS_REQUIRE_SERVERS": "1"}, known=frozenset({"CHASSIS_REQUIRE_SERVERS"})) == ({}, [])


def test_an_empty_variable_counts_as_unset():
    """Compose files make empty ones out of unset ones; even an unknown name is none then."""
    assert read({"CHASSIS_TIMEOUT": "", "CHASSIS_NOTHING": ""}) == ({}, [])


def test_a_variable_that_ends_in_file_names_the_file_of_a_secret():
    """For secrets only, and never where a setting really is called so."""
    found, unknown = read(
        {
            "CHASSIS_HEALTH_TOKEN_FILE": "/run/t",
            "CHASSIS_DB__PASSWORD_FILE": "/run/p",
            "CHASSIS_KEY_FILE": "k",
            "CHASSIS_TIMEOUT_FILE": "/run/x",
        }
    )
    assert found == {
        ("health_token",): "file:/run/t",
        ("db", "password"): "file:/run/p",
        ("key_file",): "k",
    }
    assert [each.name for each in unknown] == ["CHASSIS_TIMEOUT_FILE"]


def test_two_variables_for_one_setting_are_an_error_that_names_both():
    """A value and a file, or the same name in another case."""
    with pytest.raises(ConfigErrors) as raised:
        read({"CHASSIS_HEALTH_TOKEN": "a", "CHASSIS_HEALTH_TOKEN_FILE": "b"})
    assert "CHASSIS_HEALTH_TOKEN_FILE" in str(raised.value)
    assert "environment CHASSIS_HEALTH_TOKEN)" in str(
        raised.value
    ) or "environment CHASSIS_HEALTH_TOKEN " in str(raised.value)


def test_a_whole_table_may_be_json_and_bad_json_is_an_error():
    """For a map or a table; a plain text for a table without a shorthand is none."""
    found, _ = read({"CHASSIS_POLICIES": '{"breaker:a": {"failure_rate": 0.3}}', "CHASSIS_DB": '{"port": 3}'})
    assert found == {("policies", "breaker:a", "failure_rate"): 0.3, ("db", "port"): 3}
    with pytest.raises(ConfigErrors) as raised:
        read({"CHASSIS_POLICIES": "{no", "CHASSIS_DB": "text"})
    told = str(raised.value)
    assert "policies: is not JSON (from environment CHASSIS_POLICIES)" in told
    assert "db: is a table, and this is a text (from environment CHASSIS_DB)" in told


def test_files_of_the_secrets_directory_are_references():
    """Called as the variable would be, with or without prefix, and only where a secret is wanted."""
    files = {
        "health_token": "/s/health_token",
        "chassis_db__password": "/s/chassis_db__password",
        "timeout": "/s/timeout",
        "other": "/s/other",
        "db__password_file": "/s/db__password_file",
    }
    layer = from_secret_files(files, NODE, "CHASSIS_")
    assert {path: leaf.value for path, leaf in layer.items()} == {
        ("health_token",): "file:/s/health_token",
        ("db", "password"): "file:/s/chassis_db__password",
    }
    assert layer[("health_token",)].origin == "secrets directory /s/health_token"


def test_the_nearest_name():
    """Missing underscores first, then likeness, else none."""
    assert nearest("dbport", ["db_port", "dbport2"]) == "db_port"
    assert nearest("TIMOUT", ["timeout", "zone"]) == "timeout"
    assert nearest("xyz", ["timeout"]) is None


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", ("a",)),
        ("chassis.timeout", ("chassis", "timeout")),
        ('policies."breaker:payments".failure_rate', ("policies", "breaker:payments", "failure_rate")),
    ],
)
def test_names_are_read_as_toml_reads_them(text, path):
    """Dotted, quoted where need be."""
    assert parse_path(text) == path


@pytest.mark.parametrize("text", ["", "a..b", "a b", "a = 1\nb", '"a', "a.", "[a]"])
def test_what_is_no_name_is_refused(text):
    """With a word on how to write one."""
    with pytest.raises(ConfigError, match="is no setting's name"):
        parse_path(text)


def test_arguments_are_assignments():
    """``name=value``; the value may hold further equals signs and is never shown."""
    layer = parse_assignments(["chassis.services.catalog=http://a?x=1", "price = 2"])
    assert {path: leaf.value for path, leaf in layer.items()} == {
        ("chassis", "services", "catalog"): "http://a?x=1",
        ("price",): "2",
    }
    assert layer[("price",)].origin == "command line price"
    with pytest.raises(ConfigError, match="name=value"):
        parse_assignments(["price"])


def test_case_10_documents_that_cannot_be_read_say_where():
    """Not TOML: line and column; not UTF-8: the byte. An empty one and a byte order mark are fine."""
    assert parse(b"", "f") == {}
    assert parse(b"\xef\xbb\xbfa = 1", "f")[("a",)].value == 1
    with pytest.raises(ConfigError, match=r"is not TOML: .*line 2.*\(from f\)"):
        parse(b"a = 1\nb = \nc = 2", "f")
    with pytest.raises(ConfigError, match="is not UTF-8 at byte 5"):
        parse(b"a = '\xff'", "f")


def test_prefixes_come_from_the_model_else_from_the_service():
    """``env_prefix`` of the model; else the service in capitals, and the table."""

    class Own:
        model_config: ClassVar = {"env_prefix": "OWN_"}

    configuration = Configuration("order-history", environment={})
    assert configuration.settings(Own)._prefix == "OWN_"
    assert configuration.settings(Root)._prefix == "ORDER_HISTORY_"
    assert configuration.settings(Root, table="mail-out")._prefix == "ORDER_HISTORY_MAIL_OUT__"
    assert configuration.settings(Root, prefix="X_")._prefix == "X_"
