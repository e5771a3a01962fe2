"""From values to validated settings: every error at once, with setting, origin and remedy."""

import contextlib
import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, Field, SecretBytes, SecretStr, field_validator
from pydantic_settings import BaseSettings

from chassis.breaker import BreakerOptions
from chassis.config import ConfigErrors, apply, build, parse_seconds
from chassis.config._build import changed_paths
from chassis.core import ConfigError
from chassis.core.options import Seconds, check_fraction, check_seconds
from chassis.core.secrets import Secret
from chassis.limits import BulkheadOptions


@dataclass(frozen=True, kw_only=True)
class Service:
    settings_shorthand: ClassVar[str] = "urls"
    urls: tuple[str, ...] = ()
    timeout: Seconds = 3.0

    def __post_init__(self):
        check_seconds("timeout", self.timeout)


@dataclass(frozen=True, kw_only=True)
class Root:
    services: Mapping[str, Service] = field(default_factory=dict)
    token: Secret | None = None
    wait: Seconds | None = None
    level: Literal["debug", "info"] = "info"
    fallback: Service = Service(urls=("http://default",), timeout=9.0)
    seen: Callable[[], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Options:
    failure_rate: float = 0.5
    wait: Seconds = 1.0
    names: list[str] = field(default_factory=list)
    name: str

    def __post_init__(self):
        check_fraction("failure_rate", self.failure_rate)


class Database(BaseModel):
    host: str
    port: int = 5432
    password: SecretStr = SecretStr("none")


def errors_of(function, *arguments, **options) -> list[ConfigError]:
    with pytest.raises(ConfigError) as raised:
        function(*arguments, **options)
    return list(getattr(raised.value, "errors", [raised.value]))


def test_a_dataclass_is_built_with_its_nested_tables():
    """Durations as texts, lists with commas, a text as a table's shorthand."""
    root = build(
        Root,
        {
            "services": {"catalog": "http://a:1, http://b:2", "orders": {"timeout": "200ms"}},
            "wait": "2m",
            "level": "debug",
        },
    )
    assert root.services == {
        "catalog": Service(urls=("http://a:1", "http://b:2")),
        "orders": Service(timeout=0.2),
    }
    assert (root.wait, root.level) == (120.0, "debug")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("200ms", 0.2),
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("5us", 5e-6),
        ("5 µs", 5e-6),
        (" 3 ", 3.0),
        (".5S", 0.5),
        ("7.", 7.0),
        ("", None),
        ("1w", None),
        ("-1s", None),
        ("1s2", None),
        ("inf", None),
    ],
)
def test_durations_have_units(text, seconds):
    """A plain number is seconds; what is no duration is None, not a guess."""
    assert parse_seconds(text) == (seconds if seconds is None else pytest.approx(seconds))


def test_case_2_all_errors_come_at_once_with_setting_origin_and_remedy():
    """Bad values, unknown keys, a text that is no JSON, a check of the options' own: one error."""
    found = errors_of(
        build,
        Root,
        {
            "servces": {},
            "services": {"catalog": {"timeout": "soon"}, "orders": {"timeout": 0}, "x": "{no"},
            "wait": -1,
            "level": "loud",
        },
        table=("chassis",),
        origin="chassis.toml",
    )
    by_setting = {each.setting: each for each in found}
    assert set(by_setting) == {
        "chassis.servces",
        "chassis.services.catalog.timeout",
        "chassis.services.orders.timeout",
        "chassis.services.x",
        "chassis.level",
    }
    assert by_setting["chassis.servces"].remedy == "did you mean services?"
    assert by_setting["chassis.services.catalog.timeout"].origin == "chassis.toml [services.catalog]"
    assert "'soon' is not a duration" in str(by_setting["chassis.services.catalog.timeout"])
    assert by_setting["chassis.services.orders.timeout"].remedy == "give seconds, above 0"
    assert "JSON" in by_setting["chassis.services.x"].message
    assert "'debug' or 'info'" in by_setting["chassis.level"].message


def test_the_errors_print_one_a_line():
    """A person reads each as setting, problem, origin and remedy."""
    with pytest.raises(ConfigErrors) as raised:
        build(Root, {"a": 1, "wait": "x"}, origin="f")
    assert len(str(raised.value).splitlines()) == 2
    assert all("(from f)" in line and ";" in line for line in str(raised.value).splitlines())


def test_a_required_setting_says_where_it_can_be_given():
    """By the hint, for dataclasses and models alike."""
    for type_, missing in ((Options, "name"), (Database, "host")):
        (error,) = errors_of(build, type_, {}, hint=lambda path: f"set {path[-1].upper()}")
        assert (error.setting, error.message) == (missing, "is required and not set")
        assert error.remedy == f"set {missing.upper()}"


def test_case_3_a_secret_is_in_no_form_of_an_error():
    """Not in the text, the errors' parts or the traceback, even when a validator prints it."""

    class Leaky(BaseModel):
        password: SecretStr
        token: Secret
        port: int

        @field_validator("password")
        @classmethod
        def refuse(cls, value):
            raise ValueError(f"bad password {value.get_secret_value()}")

    values = {"password": "hunter2", "token": ["s3cret-token"], "port": "x"}
    with pytest.raises(ConfigError) as raised:
        build(Leaky, values)
    told = "".join(traceback.format_exception(raised.value))
    told += json.dumps([vars(each) for each in raised.value.errors])
    assert "hunter2" not in told
    assert "s3cret-token" not in told
    assert "bad password **********" in told


def test_case_4_a_missing_other_field_does_not_print_the_secret():
    """Pydantic prints the whole input where one field of it is missing; we do not."""
    values = {"password": "hunter2"}
    with pytest.raises(ConfigError) as raised:
        build(Database, values)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


def test_a_value_under_a_telling_name_is_not_shown():
    """A text in a field of duration that is called like a secret, or looks like a DSN."""

    class Odd(BaseModel):
        api_key_age: Seconds = 1.0
        age: Seconds = 1.0

    told = str(ConfigErrors(errors_of(build, Odd, {"api_key_age": "hunter2", "age": "http://u:hunter2@h"})))
    assert "the value is not a duration" in told
    assert "hunter2" not in told


def test_secrets_are_built_from_texts_and_from_secrets():
    """Pydantic's types and ours; masked wherever they are printed."""

    class All(BaseModel):
        a: Secret
        b: SecretStr
        c: SecretBytes
        d: list[Secret]
        e: Secret | None = None

    built = build(
        All, {"a": Secret("one"), "b": Secret("two"), "c": Secret("three"), "d": ["four"], "e": "five"}
    )
    assert built.a.reveal() == "one"
    assert built.b.get_secret_value() == "two"
    assert built.c.get_secret_value() == b"three"
    assert built.d == [Secret("four")]
    assert built.e == Secret("five")
    assert not any(each in repr(built) for each in ("one", "two", "three", "four", "five"))


def test_case_27_a_nested_default_keeps_what_is_not_overridden():
    """One leaf set beneath a default instance leaves its other fields as they were."""

    class Model(BaseModel):
        db: Database = Database(host="given", port=7)

    assert build(Root, {"fallback": {"timeout": 1}}).fallback == Service(
        urls=("http://default",), timeout=1.0
    )
    assert build(Model, {"db": {"port": 8}}).db == Database(host="given", port=8)


def test_what_can_only_be_given_in_code_is_refused():
    """No text can become a function, nor an object of some class."""

    class Odd:
        pass

    @dataclass(frozen=True, kw_only=True)
    class WithOdd:
        odd: Odd | None = None

    (error,) = errors_of(build, Root, {"seen": "print"})
    assert error.setting == "seen"
    (error,) = errors_of(build, WithOdd, {"odd": 1})
    assert "only be given in code" in error.message


def test_unknown_names_are_refused_in_models_that_do_not_ask_for_them():
    """Pydantic's default ignores them; extra="ignore" and "allow" said by the model hold."""

    class Lax(BaseModel):
        model_config = {"extra": "allow"}
        a: int = 1

    class Deaf(BaseModel):
        model_config = {"extra": "ignore"}
        a: int = 1

    (error,) = errors_of(build, Database, {"host": "a", "prot": 1})
    assert (error.setting, error.remedy) == ("prot", "did you mean port?")
    (error,) = errors_of(build, Database, {"host": "a", "zzzz": 1})
    assert error.remedy == "known are: host, password, port"
    assert build(Lax, {"a": 2, "b": 3}).b == 3
    assert build(Deaf, {"b": 3}) == Deaf(a=1) or build(Deaf, {"b": 3}).a == 1


def test_nested_models_in_lists_and_maps_are_named_by_position():
    """Errors within name the item."""

    class Model(BaseModel):
        routes: list[Database] = []
        named: dict[str, Database] = {}

    found = errors_of(
        build,
        Model,
        {"routes": [{"host": "a"}, {"host": "b", "port": "x"}], "named": {"a.b": {"hst": 1}}},
        origin="f",
    )
    assert [each.setting for each in found] == ['named."a.b".hst', "routes.1.port", 'named."a.b".host']
    assert found[1].origin == "f"


def test_aliases_are_names_and_two_names_for_one_setting_clash():
    """By the alias, or by any of several choices; both at once is an error."""

    class Model(BaseModel):
        model_config = {"populate_by_name": True}
        host: str = Field("h", validation_alias=AliasChoices("HOST_NAME", "hst"))

    assert build(Model, {"hst": "a"}).host == build(Model, {"host": "a"}).host == "a"
    (error,) = errors_of(build, Model, {"hst": "a", "host": "b"})
    assert "given twice" in error.message


def test_the_built_model_is_frozen_and_of_the_models_class():
    """What many readers share cannot be changed by one of them."""
    built = build(Database, {"host": "a"})
    assert isinstance(built, Database)
    with pytest.raises(Exception, match="frozen"):
        built.host = "b"


def test_a_base_settings_model_does_not_read_the_environment_behind_our_back(monkeypatch):
    """pydantic-settings reads its sources even when it validates; ours are all there is."""
    monkeypatch.setenv("INV_PORT", "77")

    class Inv(BaseSettings):
        model_config = {"env_prefix": "INV_"}
        port: int = 1
        host: str = "h"

    assert build(Inv, {"host": "x"}).port == 1
    assert isinstance(build(Inv, {}), Inv)


def test_overrides_start_from_the_options_in_code():
    """Only what is overridden changes, and the options' own checks hold."""
    base = Options(name="payments", failure_rate=0.7, wait=5.0)
    changed = apply(base, {"wait": "200ms", "names": "a,b"})
    assert changed == Options(name="payments", failure_rate=0.7, wait=0.2, names=["a", "b"])
    assert base.wait == 5.0


def test_of_options_that_exclude_each_other_the_one_in_settings_holds():
    """TOML has no None: ``window_calls`` in settings takes back the ``window`` given in code, and the reverse."""
    by_time = BreakerOptions(window=60.0, open_for=7.0)
    by_calls = apply(by_time, {"window_calls": 100})
    assert by_calls == BreakerOptions(window_calls=100, open_for=7.0)
    assert apply(by_calls, {"window": "10s"}) == BreakerOptions(window=10.0, open_for=7.0)
    assert apply(by_calls, {"open_for": "1s"}) == BreakerOptions(window_calls=100, open_for=1.0)


def test_options_that_exclude_each_other_are_refused_where_settings_give_both():
    """Then nobody can say which was meant."""
    found = errors_of(apply, BreakerOptions(), {"window": "10s", "window_calls": 100}, setting="policy")
    assert [(each.setting, each.remedy) for each in found] == [
        ("policy.window_calls", "give one of window and window_calls, and leave the other out")
    ]


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize(
    ("options", "name"),
    [(BulkheadOptions, "limit"), (BreakerOptions, "window_calls"), (BreakerOptions, "open_for")],
)
def test_true_is_no_count_and_no_duration_in_settings_either(options, name, value):
    """``limit = true`` is not the limit of 1 for which pydantic would take it."""
    with pytest.raises(ConfigError, match=f"{name}: {value} is not a number .*write a number"):
        build(options, {name: value}, origin="test")
    with pytest.raises(ConfigError, match=f"{name}: {value} is not a number"):
        apply(options(), {name: value})


def test_bad_overrides_name_the_whole_setting_and_its_origin():
    """Policy settings are named as in the file, whatever they contain."""
    found = errors_of(
        apply,
        Options(name="x"),
        {"failure_rate": "30", "wat": 1},
        setting='chassis.policies."breaker:payments"',
        origin=lambda path: f"kv {'/'.join(path)}",
    )
    assert [(each.setting, each.origin) for each in found] == [
        ('chassis.policies."breaker:payments".wat', "kv wat"),
        ('chassis.policies."breaker:payments".failure_rate', "kv failure_rate"),
    ]
    assert "30 %" in found[1].remedy


def test_a_table_may_be_json_and_a_wrong_one_says_so():
    """A text that begins with a brace is the whole table."""
    assert build(Root, {"fallback": '{"timeout": "1s"}'}).fallback.timeout == 1.0
    (error,) = errors_of(build, Options, {"name": "x", "names": "[1,"})
    assert "JSON" in error.message
    (error,) = errors_of(build, Root, {"fallback": 3})
    assert "not a table" in error.message


def test_metadata_of_the_users_own_is_kept():
    """Constraints in Annotated hold for dataclasses as for models."""

    @dataclass(frozen=True, kw_only=True)
    class Bounded:
        port: Annotated[int, Field(gt=0, lt=65536)] = 1

    (error,) = errors_of(build, Bounded, {"port": 0})
    assert error.setting == "port"
    assert build(Bounded, {"port": "80"}).port == 80


def test_differences_are_named_by_leaf():
    """Nested models, maps with keys that come and go, lists as a whole."""

    class Model(BaseModel):
        db: Database
        prices: dict[str, float] = {}
        tags: list[str] = []

    old = Model(db=Database(host="a"), prices={"x": 1, "y": 2}, tags=["a"])
    new = Model(db=Database(host="b"), prices={"x": 3, "z y": 1}, tags=["a", "b"])
    assert changed_paths(Model, old, new) == ("db.host", 'prices."z y"', "prices.x", "prices.y", "tags")
    assert changed_paths(Model, old, old.model_copy(deep=True)) == ()


@given(st.floats(min_value=0.001, max_value=1e6))
def test_any_plain_number_is_its_own_duration(number):
    """As text or as number, the same seconds."""
    assert build(Service, {"timeout": f"{number:f}"}).timeout == pytest.approx(number, abs=1e-6)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda x: (
            st.lists(x, max_size=2)
            | st.dictionaries(
                st.sampled_from(["services", "urls", "timeout", "wait", "token", "db"]), x, max_size=3
            )
        ),
    )
)
def test_no_input_whatever_raises_anything_but_a_config_error(values):
    """Whatever a file holds, the answer is settings or a ConfigError."""
    if not isinstance(values, dict):
        values = {"services": values, "fallback": values, "token": values}
    with contextlib.suppress(ConfigError):
        build(Root, values)


def test_any_is_anything():
    """A map of anything passes as it is."""

    @dataclass(frozen=True, kw_only=True)
    class Free:
        policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    assert build(Free, {"policies": {"a:b": {"x": [1, {"y": 2}]}}}).policies == {"a:b": {"x": [1, {"y": 2}]}}
