"""The key-value store against a model, and the promises of its indexes."""

from hypothesis import given
from hypothesis import strategies as st

from chassis.devagent._kv import KeyValueStore
from chassis.devagent._txn import Operation, apply

KEYS = st.sampled_from(["a", "a/", "a/1", "a/2", "a/2/x", "ab", "b"])
PREFIXES = ["", "a", "a/", "a/2", "b", "zz/"]
VALUES = st.sampled_from([b"", b"1", b"2"])
WRITES = st.one_of(
    st.tuples(st.just("set"), KEYS, VALUES),
    st.tuples(st.just("delete"), KEYS, st.just(b"")),
    st.tuples(st.just("delete-tree"), st.sampled_from(PREFIXES), st.just(b"")),
)


def write(store, model, index, step):
    verb, key, value = step
    if verb == "set":
        store.put(key, value, index)
        model[key] = value
    elif verb == "delete":
        store.delete(key, index, 0.0)
        model.pop(key, None)
    else:
        store.delete_under(key, index, 0.0)
        for each in [each for each in model if each.startswith(key)]:
            del model[each]


@given(st.lists(WRITES, max_size=30))
def test_the_store_holds_what_a_dict_would_and_tells_every_change_by_its_index(steps):
    """A prefix whose content changed has a higher index; one that did not has the same, if it has any."""
    store, model = KeyValueStore(), {}
    for index, step in enumerate(steps, start=100):
        before = {prefix: (content(model, prefix), store.prefix_index(prefix)) for prefix in PREFIXES}
        write(store, model, index, step)
        for prefix, (old_content, old_index) in before.items():
            new_content, new_index = content(model, prefix), store.prefix_index(prefix)
            assert [(e.key, e.value) for e in store.under(prefix)] == new_content
            assert new_index >= old_index
            if new_content != old_content:
                assert new_index == index
            elif new_content:
                assert new_index == old_index or prefix == ""


def content(model, prefix):
    return sorted((key, value) for key, value in model.items() if key.startswith(prefix))


OPERATIONS = st.builds(
    Operation,
    verb=st.sampled_from(
        ["set", "cas", "get", "get-tree", "delete", "delete-cas", "delete-tree", "check-index"]
    ),
    key=KEYS,
    value=VALUES,
    index=st.sampled_from([0, 1, 2, 3]),
)


@given(st.lists(WRITES, max_size=5), st.lists(OPERATIONS, max_size=8))
def test_a_transaction_that_fails_leaves_no_trace(before, operations):
    """Not in entries, not in indexes, not in what was deleted; and it reads nothing either."""
    store, model = KeyValueStore(), {}
    for index, step in enumerate(before, start=1):
        write(store, model, index, step)
    state = store.snapshot()
    results, failures = apply(store, operations, 100, 0.0)
    if failures:
        assert store.snapshot() == state
        assert results == []


def test_what_was_deleted_is_forgotten_after_a_quarter_of_an_hour():
    """A store that is written and deleted for days does not grow."""
    store = KeyValueStore()
    for number in range(100):
        store.put(str(number), b"x", 2 * number)
        store.delete(str(number), 2 * number + 1, now=number * 100.0)
    _, tombstones, _ = store.snapshot()
    assert len(tombstones) == 10
