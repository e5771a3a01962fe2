"""What is made of the entries of a health answer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.adapters.consul._instances import parse_instance, parse_instances
from chassis.core import Instance, Status

ENTRY: dict[str, Any] = {
    "Node": {"Node": "n1", "Address": "10.0.0.9", "Datacenter": "dc1", "Meta": {"zone": "z-node"}},
    "Service": {
        "ID": "catalog:1",
        "Service": "catalog",
        "Tags": ["blue"],
        "Address": "10.0.0.1",
        "Port": 8080,
        "Meta": {"version": "2"},
        "Weights": {"Passing": 7, "Warning": 3},
    },
    "Checks": [{"CheckID": "serfHealth", "Status": "passing"}],
}


def entry(*statuses: str, checks: list[dict[str, Any]] | None = None, **service: Any) -> dict[str, Any]:
    made = copy.deepcopy(ENTRY)
    made["Service"].update(service)
    made["Checks"] += [{"CheckID": f"c{number}", "Status": each} for number, each in enumerate(statuses)]
    made["Checks"] += checks or []
    return made


def test_an_entry_becomes_an_instance() -> None:
    assert parse_instance(entry()) == Instance(
        id="catalog:1",
        service="catalog",
        host="10.0.0.1",
        port=8080,
        zone="z-node",
        datacenter="dc1",
        tags=("blue",),
        meta={"version": "2"},
        weight=7,
        status=Status.PASSING,
    )


@pytest.mark.parametrize(
    ("statuses", "status", "weight"),
    [
        ([], Status.PASSING, 7),
        (["passing", "passing"], Status.PASSING, 7),
        (["passing", "warning"], Status.WARNING, 3),
        (["warning", "critical", "passing"], Status.CRITICAL, 7),
        (["unheard of"], Status.CRITICAL, 7),
    ],
)
def test_the_worst_check_decides(statuses: list[str], status: Status, weight: int) -> None:
    instance = parse_instance(entry(*statuses))
    assert (instance.status, instance.weight) == (status, weight)


@pytest.mark.parametrize("check", ["_node_maintenance", "_service_maintenance:catalog:1"])
def test_maintenance_is_told_apart_from_illness(check: str) -> None:
    maintenance = [{"CheckID": check, "Status": "critical"}]
    assert parse_instance(entry("critical", checks=maintenance)).status is Status.MAINTENANCE


def test_case_37_an_empty_address_is_its_nodes() -> None:
    assert parse_instance(entry(Address="")).host == "10.0.0.9"


def test_case_37_an_ipv6_address_loses_its_brackets_and_gets_them_back_in_urls() -> None:
    instance = parse_instance(entry(Address="[fd00::1]"))
    assert instance.host == "fd00::1"
    assert instance.url == "http://[fd00::1]:8080"
    assert parse_instance(entry(Address="fd00::1")).url == "http://[fd00::1]:8080"


def test_scheme_and_zone_are_read_from_the_instances_meta() -> None:
    instance = parse_instance(entry(Meta={"scheme": "https", "zone": "z1"}))
    assert (instance.scheme, instance.zone) == ("https", "z1")


def test_case_12_missing_and_null_fields_are_no_harm() -> None:
    bare = {"Service": {"ID": "a", "Service": "a", "Address": "h", "Port": 1, "Tags": None, "Meta": None}}
    assert parse_instance(bare) == Instance(id="a", service="a", host="h", port=1)
    bare["Service"]["Weights"] = {"Passing": 0}
    assert parse_instance(bare).weight == 1
    bare["Service"]["Weights"] = {"Passing": 10**400}
    assert parse_instance(bare).weight == 65535, "what no float can hold"
    bare["Service"]["Weights"] = {"Passing": True}
    assert type(parse_instance(bare).weight) is int, "no snapshot file takes another"


BAD: list[Any] = [
    None,
    [],
    "entry",
    {},
    {"Service": None},
    entry(ID=""),
    entry(ID=7),
    entry(Service=None),
    entry(Port=0),
    entry(Port=70000),
    entry(Port=None),
    entry(Port="80"),
    entry(Port=True),
    entry(Address="a b"),
    entry(Address="host/path"),
    entry(Address="10.0.0.1:80"),
    entry(Address="999.1.1.1"),
    entry(Address=7),
    entry(Meta={"scheme": "ftp"}),
    entry(checks=["no check"]),  # type: ignore[list-item]
]


@pytest.mark.parametrize("bad", BAD)
def test_case_12_one_bad_entry_drops_only_itself(bad: Any) -> None:
    parsed = parse_instances([bad, entry()])
    assert [each.id for each in parsed.instances] == ["catalog:1"]
    assert len(parsed.skipped) == 1


def test_what_is_wrong_with_an_entry_is_told() -> None:
    assert parse_instances([entry(Port=0)]).skipped == ("ValueError: 'catalog:1' has no usable port: 0",)


def test_of_two_entries_of_one_address_the_healthier_counts() -> None:
    ghost, alive = entry("critical"), entry("passing")
    for entries in ([ghost, alive], [alive, ghost]):
        (instance,) = parse_instances(entries).instances
        assert instance.status is Status.PASSING


def test_the_same_id_at_two_addresses_is_two_instances() -> None:
    assert len(parse_instances([entry(), entry(Address="10.0.0.2")]).instances) == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Service", "Node", "Checks", "ID", "Port", "Address", "Meta"]), inner
        )
    ),
    max_leaves=10,
)


@given(st.lists(json_values, max_size=5))
def test_no_answer_whatever_raises(entries: list[Any]) -> None:
    parsed = parse_instances(entries)
    assert len(parsed.instances) + len(parsed.skipped) <= len(entries)
