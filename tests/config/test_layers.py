"""Layers over one another: pure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.config import ConfigErrors, lookup
from chassis.config._layers import (
    Leaf,
    below,
    dotted,
    fold,
    leaves,
    match,
    merge,
    without,
)
from chassis.core import ConfigError


def test_a_leaf_knows_source_and_table():
    """Every leaf says where it stands, with the table as TOML writes it."""
    found = leaves({"a": 1, "b": {"c d": {"e": 2}}}, "x.toml")
    assert found == {
        ("a",): Leaf(1, "x.toml"),
        ("b", "c d", "e"): Leaf(2, 'x.toml [b."c d"]'),
    }


def test_leaves_keep_that_they_are_remote():
    """A remote value stays known as one, however deep."""
    assert leaves({"a": {"b": 1}, "c": 2}, "kv", remote=True) == {
        ("a", "b"): Leaf(1, "kv [a]", True),
        ("c",): Leaf(2, "kv", True),
    }


def test_an_empty_table_and_a_list_are_leaves():
    """What has no keys of its own is kept as a value."""
    assert leaves({"a": {}, "b": [{"c": 1}]}, "x") == {("a",): Leaf({}, "x"), ("b",): Leaf([{"c": 1}], "x")}


def test_the_later_layer_wins_key_by_key():
    """Tables merge; the hidden value and its origin stay known."""
    low = leaves({"db": {"host": "a", "port": 1}}, "file")
    high = leaves({"db": {"port": 2}}, "kv")
    merged = merge([low, high])
    assert merged.tree() == {"db": {"host": "a", "port": 2}}
    assert merged.origin(("db", "port")) == "kv [db]"
    assert merged.origin(("db", "host")) == "file [db]"
    assert merged.hidden == {("db", "port"): (Leaf(1, "file [db]"),)}


def test_the_hidden_are_told_strongest_first():
    """Three layers: what the winner hides is told in the order it would take its place."""
    merged = merge([leaves({"a": i}, str(i)) for i in range(3)])
    assert merged.leaves[("a",)].value == 2
    assert [each.value for each in merged.hidden[("a",)]] == [1, 0]


def test_case_26_lists_are_replaced_and_a_clash_names_both_origins():
    """A list in two layers is replaced; a value against a table is an error with both origins."""
    assert merge([leaves({"a": [1, 2]}, "low"), leaves({"a": [3]}, "high")]).tree() == {"a": [3]}
    with pytest.raises(ConfigError) as raised:
        merge([leaves({"db": {"url": {"host": 1}}}, "low"), leaves({"db": {"url": 3}}, "high")])
    assert raised.value.setting == "db.url"
    assert raised.value.origin == "high [db]"
    assert "low [db.url]" in str(raised.value)
    assert raised.value.remedy


def test_the_clash_is_found_whichever_layer_is_the_stronger():
    """The table may be in the stronger layer as well."""
    with pytest.raises(ConfigError) as raised:
        merge([leaves({"db": 3}, "low"), leaves({"db": {"host": 1}}, "high")])
    assert raised.value.origin == "low"
    assert "high [db]" in str(raised.value)


def test_all_clashes_are_told_at_once():
    """Two clashes make one error with two lines."""
    with pytest.raises(ConfigErrors) as raised:
        merge([leaves({"a": 1, "b": 2}, "low"), leaves({"a": {"x": 1}, "b": {"x": 1}}, "high")])
    assert [each.setting for each in raised.value.errors] == ["a", "b"]
    assert len(str(raised.value).splitlines()) == 2


def test_an_empty_table_adds_nothing_and_clashes_with_nothing():
    """``[db]`` with nothing in it, over or under a table that has something."""
    full, empty = leaves({"db": {"host": "a"}}, "full"), leaves({"db": {}}, "empty")
    assert merge([full, empty]).tree() == merge([empty, full]).tree() == {"db": {"host": "a"}}
    assert merge([empty]).tree() == {"db": {}}


@pytest.mark.parametrize("value", [0, "", False, []])
def test_a_value_that_is_nothing_is_still_a_value(value):
    """Zero against a table is a clash like any other."""
    with pytest.raises(ConfigError, match="a value here and a table"):
        merge([leaves({"db": value}, "low"), leaves({"db": {"host": 1}}, "high")])
    with pytest.raises(ConfigError, match="must be a table") as raised:
        below(leaves({"db": value}, "f"), ("db",))
    assert raised.value.setting == "db"


def test_the_origin_of_a_table_is_that_of_its_parts():
    """Each origin once, in order; of what is not there, None."""
    merged = merge([leaves({"db": {"a": 1, "b": 2}, "dbx": 1}, "f"), leaves({"db": {"c": 1}}, "e")])
    assert merged.origin(("db",)) == "f [db], e [db]"
    assert merged.origin(("nothing",)) is None
    assert merged.origin(("db", "a", "0")) == "f [db]"
    assert merged.origin(("dbx", "0")) == "f"
    assert merge([]).origin(()) is None


def test_replaced_values_keep_their_origins():
    """Secrets are put in place of references without losing where those stood."""
    merged = merge([leaves({"a": "file:x"}, "low", remote=True), leaves({"b": 1}, "high")])
    replaced = merged.replace({("a",): "s3cret"})
    assert replaced.leaves == {("a",): Leaf("s3cret", "low", True), ("b",): Leaf(1, "high")}
    assert merged.leaves[("a",)].value == "file:x"
    both = merge([leaves({"a": 1}, "low"), leaves({"a": 2}, "high")])
    assert both.replace({("a",): 3}).hidden == both.hidden != {}


def test_a_tables_part_is_counted_from_the_table():
    """Other tables, and those whose names merely begin alike, are left out."""
    layer = leaves({"app": {"a": 1, "b": {"c": 2}}, "app2": {"d": 3}, "e": 4}, "f")
    assert {path: leaf.value for path, leaf in below(layer, ("app",)).items()} == {("a",): 1, ("b", "c"): 2}
    assert below(layer, ()) == layer
    assert below(leaves({"app": {}}, "f"), ("app",)) == {}
    assert below(layer, ("none", "such")) == {}
    assert set(without(layer, ["app", "e"])) == {("app2", "d")}


@pytest.mark.parametrize("document", [{"app": 3}, {"app": {"db": [1]}}])
def test_a_value_in_place_of_the_table_is_an_error(document):
    """It is not quietly left out."""
    with pytest.raises(ConfigError, match="must be a table") as raised:
        below(leaves(document, "f"), ("app", "db"))
    assert raised.value.remedy.startswith("write a table [app")
    assert raised.value.origin.startswith("f")


def test_names_are_dotted_as_toml_writes_them():
    """Keys that are not bare are quoted, quotes within escaped."""
    assert (
        dotted(("policies", "breaker:payments", "failure_rate")) == 'policies."breaker:payments".failure_rate'
    )
    assert dotted(('a"b', "c-d_E9")) == '"a\\"b".c-d_E9'
    assert dotted(("", "a")) == '"".a'
    assert dotted(("größe",)) == '"größe"'


def test_names_match_with_case_and_dash_aside_but_exactly_first():
    """``_`` matches ``-``; an exact name is preferred to one that only folds alike."""
    assert fold("Order-History_X") == "order_history_x"
    assert match(["order-history", "x"], "ORDER_HISTORY") == "order-history"
    assert match(["a-b", "a_b"], "a_b") == "a_b"
    assert match(["A-B", "a-b"], "a_b") == "A-B"
    assert match(["a"], "b") is None
    assert lookup({"order_history": 1}, "order-history") == 1
    assert lookup({}, "x") is None


def test_a_leaf_does_not_show_its_value():
    """It may be a secret."""
    assert "hunter2" not in repr(leaves({"password": "hunter2"}, "f"))


_tables = st.recursive(
    st.integers(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
).filter(lambda value: isinstance(value, dict))


@given(_tables)
def test_one_layer_comes_out_as_it_went_in(table):
    """Flattening and merging one layer loses nothing."""
    assert merge([leaves(table, "f")]).tree() == table


def _deep_update(low, high):
    out = dict(low)
    for key, value in high.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _deep_update(out[key], value) if both else value
    return out


@given(st.lists(_tables, max_size=4))
def test_merging_is_the_deep_update_everybody_knows_unless_it_clashes(tables):
    """Against a model of five lines; where that would replace a table by a value, we refuse."""
    expected = {}
    for table in tables:
        expected = _deep_update(expected, table)
    try:
        merged = merge([leaves(table, str(i)) for i, table in enumerate(tables)])
    except ConfigError:
        return
    assert merged.tree() == expected
