"""Keys and values: reading, writing, comparing, watching, and transactions."""

import base64
import itertools
import statistics
import time

import pytest

from tests.contract.differences import (
    GET_OR_EMPTY,
    KEY_WITH_SPACE_AT_ITS_BEGINNING,
    UNRELATED_WRITE_WAKES_MISSING_KEY,
)
from tests.support.waiting import at_best

SAMPLES = 20
LIMIT = 512 * 1024


def b64(value):
    return base64.b64encode(value).decode()


def op(verb, key, value=None, **more):
    return {"KV": {"Verb": verb, "Key": key, **({} if value is None else {"Value": b64(value)}), **more}}


def test_a_key_comes_back_as_it_was_put(agent):
    """Bytes, flags and indexes; a second write keeps the create index."""
    key = agent.name("config/app/one")
    every_byte = bytes(range(256))
    assert agent.consul.kv.put(key, every_byte, flags=2**64 - 1)
    index, entry = agent.consul.kv.get(key)
    assert (entry["Value"], entry["Flags"], entry["Key"]) == (every_byte, 2**64 - 1, key)
    assert int(index) == entry["ModifyIndex"] == entry["CreateIndex"]
    assert agent.consul.kv.put(key, "new")
    _, changed = agent.consul.kv.get(key)
    assert changed["CreateIndex"] == entry["CreateIndex"] < changed["ModifyIndex"]
    raw = agent.get(f"/v1/kv/{key}?raw")
    assert (raw.body, raw.headers["content-type"]) == (b"new", "text/plain")


def test_a_missing_key_is_404_with_an_index(agent):
    """So that its coming can be watched."""
    answer = agent.get(f"/v1/kv/{agent.name('missing')}")
    assert (answer.status, answer.body) == (404, b"")
    assert answer.index >= 1
    assert agent.consul.kv.get(agent.name("missing"))[1] is None


def test_an_empty_value_is_null(agent):
    """Not an empty string: a client must not call len of it."""
    key = agent.name("empty/")
    agent.consul.kv.put(key, "")
    assert agent.get(f"/v1/kv/{key}").json()[0]["Value"] is None
    assert agent.get(f"/v1/kv/{key}?raw").body == b""


def test_a_prefix_is_read_whole_and_as_keys(agent):
    """Sorted, by plain prefix, and cut at a separator for a listing by folders."""
    top = agent.name("tree")
    for key in ("b", "a/x", "a/y", "a/"):
        agent.consul.kv.put(f"{top}/{key}", key)
    agent.consul.kv.put(f"{top}2", "another tree with the same beginning")
    _, entries = agent.consul.kv.get(f"{top}/", recurse=True)
    assert [entry["Key"] for entry in entries] == [f"{top}/{key}" for key in ("a/", "a/x", "a/y", "b")]
    assert len(agent.consul.kv.get(top, recurse=True)[1]) == 5
    assert agent.consul.kv.get(f"{top}/", keys=True)[1] == [entry["Key"] for entry in entries]
    assert agent.consul.kv.get(f"{top}/", keys=True, separator="/")[1] == [f"{top}/a/", f"{top}/b"]
    assert agent.get(f"/v1/kv/{top}/?keys&seperator=/").json() == [f"{top}/a/", f"{top}/b"]


def test_a_missing_prefix_is_404(agent):
    """For entries and for keys; only the root has an empty list of keys."""
    for query in ("recurse", "keys"):
        answer = agent.get(f"/v1/kv/{agent.name('missing')}/?{query}")
        assert (answer.status, answer.body) == (404, b"")
        assert answer.index >= 1


@pytest.mark.parametrize("key", ["ünïcode", "a b", "what?", "hash#", "100%", "a&b=c+d", "x:y;z,@!$'()*~"])
def test_a_key_may_hold_any_character(agent, key):
    """What is quoted in the path comes back as it was."""
    key = f"{agent.name('odd')}/{key}/end"
    assert agent.consul.kv.put(key, "v")
    _, entry = agent.consul.kv.get(key)
    assert entry["Key"] == key
    assert agent.consul.kv.delete(key)


@pytest.mark.parametrize("path", ["//a", "a//b", "a/../b", "a%2F%2Fb"])
def test_a_path_that_is_not_clean_is_redirected(agent, path):
    """301 to the clean one: a client that follows would write another key than it meant."""
    answer = agent.put(f"/v1/kv/{path}", b"x")
    assert answer.status in (301, 307)
    assert answer.headers["location"] == (
        "/v1/kv/b" if ".." in path else "/v1/kv/a" if path == "//a" else "/v1/kv/a/b"
    )


def test_a_key_with_a_space_at_its_beginning(agent):
    """A difference: newer agents refuse such keys."""
    answer = agent.put(f"/v1/kv/%20{agent.name('space')}", b"x")
    assert (answer.status == 200) is agent.expected(KEY_WITH_SPACE_AT_ITS_BEGINNING)


def test_compare_and_set_writes_only_what_it_read(agent):
    """cas=0 creates, cas=index replaces, anything else is false and changes nothing."""
    key = agent.name("cas")
    put = agent.consul.kv.put
    assert put(key, "1", cas=0) is True
    assert put(key, "2", cas=0) is False
    index = agent.consul.kv.get(key)[1]["ModifyIndex"]
    assert put(key, "3", cas=index + 1) is False
    assert put(key, "4", cas=index) is True
    assert agent.consul.kv.get(key)[1]["Value"] == b"4"
    assert put(agent.name("none"), "5", cas=3) is False


def test_deleting_one_some_and_compared(agent):
    """A key, a prefix, or a key only if it is as it was read; what is not there succeeds."""
    top = agent.name("delete")
    for key in "abc":
        agent.consul.kv.put(f"{top}/{key}", key)
    delete = agent.consul.kv.delete
    assert delete(f"{top}/a") is True
    assert delete(f"{top}/a") is True
    index = agent.consul.kv.get(f"{top}/b")[1]["ModifyIndex"]
    assert delete(f"{top}/b", cas=index + 1) is False
    assert delete(f"{top}/b", cas=index) is True
    assert delete(f"{top}/none", cas=3) is True
    assert agent.consul.kv.get(f"{top}/", keys=True)[1] == [f"{top}/c"]
    assert delete(f"{top}/", recurse=True) is True
    assert agent.consul.kv.get(f"{top}/", recurse=True)[1] is None


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "", 400, "Missing key name"),
        ("PUT", "", 400, "Missing key name"),
        ("DELETE", "", 400, "Missing key name"),
        ("PUT", "k?cas=abc", 500, 'parsing "abc": invalid syntax'),
        ("PUT", "k?flags=-1", 500, 'parsing "-1": invalid syntax'),
        ("PUT", "k?flags=18446744073709551616", 500, "value out of range"),
        ("PUT", "k?cas=0&acquire=s", 400, "Conflicting flags"),
        ("DELETE", "k?cas=0&recurse", 400, "Conflicting flags"),
        ("POST", "k", 405, "method POST not allowed"),
    ],
)
def test_a_request_that_is_wrong_is_refused_with_the_reason(agent, method, path, status, text):
    """The status and words of Consul."""
    answer = agent.request(method, f"/v1/kv/{path}")
    assert answer.status == status
    assert text in answer.body.decode()


def test_a_value_may_have_512_kib_and_not_a_byte_more(agent):
    """413 names the limit, and the connection is answered, not cut."""
    key = agent.name("big")
    assert agent.put(f"/v1/kv/{key}", b"x" * LIMIT).status == 200
    answer = agent.put(f"/v1/kv/{key}", b"x" * (LIMIT + 1))
    assert answer.status == 413
    assert b"too large, max size: 524288 bytes" in answer.body
    assert len(agent.get(f"/v1/kv/{key}?raw").body) == LIMIT


# Watching


def test_a_write_wakes_the_watcher_of_a_key_and_of_its_prefixes(agent):
    """The value is in the answer that wakes."""
    top = agent.name("watch")
    agent.consul.kv.put(f"{top}/a", "1")
    paths = [f"/v1/kv/{top}/a", f"/v1/kv/{top}/?recurse", f"/v1/kv/{top}/?keys", "/v1/kv/?recurse"]
    blocked = [agent.block(path, agent.get(path).index) for path in paths]
    agent.consul.kv.put(f"{top}/a", "2")
    for each, path in zip(blocked, paths, strict=True):
        answer, _ = each.answer()
        assert answer.status == 200, path
    assert agent.get(f"/v1/kv/{top}/a?raw").body == b"2"


@pytest.mark.parametrize("query", ["", "?recurse", "?keys"])
def test_a_key_that_comes_wakes_who_waits_for_it(agent, query):
    """404 becomes 200."""
    top = agent.name("coming")
    path = f"/v1/kv/{top}/a{query}"
    before = agent.get(path)
    assert before.status == 404
    blocked = agent.block(path, before.index)
    agent.consul.kv.put(f"{top}/a", "here")
    answer, _ = blocked.answer()
    assert (answer.status, answer.index > before.index) == (200, True)


@pytest.mark.parametrize("query", ["", "?recurse", "?keys"])
def test_a_deleted_key_wakes_with_404_and_a_higher_index(agent, query):
    """The index rises though no entry is left to take it from."""
    top = agent.name("going")
    agent.consul.kv.put(f"{top}/a", "1")
    path = f"/v1/kv/{top}/a{query}"
    before = agent.get(path)
    blocked = agent.block(path, before.index)
    agent.consul.kv.delete(f"{top}/a")
    answer, _ = blocked.answer()
    assert (answer.status, answer.index > before.index) == (404, True)


def test_deleting_one_of_several_raises_the_index_of_the_prefix(agent):
    """Never the greatest index of the entries that are left."""
    top = agent.name("some")
    for key in "ab":
        agent.consul.kv.put(f"{top}/{key}", key)
    path = f"/v1/kv/{top}/?recurse"
    before = agent.get(path)
    blocked = agent.block(path, before.index)
    agent.consul.kv.delete(f"{top}/b")
    answer, _ = blocked.answer()
    assert answer.index > before.index > max(entry["ModifyIndex"] for entry in answer.json())


def test_the_same_value_again_wakes_nobody(agent):
    """Neither does a write beside the prefix."""
    top = agent.name("same")
    agent.consul.kv.put(f"{top}/a", "1", flags=3)
    path = f"/v1/kv/{top}/?recurse"
    index = agent.get(path).index
    blocked = agent.block(path, index, "250ms")
    agent.consul.kv.put(f"{top}/a", "1", flags=3)
    agent.consul.kv.put(f"{top}2", "beside")
    answer, _ = blocked.answer()
    assert answer.index == index
    agent.consul.kv.put(f"{top}/a", "1", flags=4)
    assert agent.get(path).index > index


def test_an_unrelated_write_and_who_waits_for_a_missing_key(agent):
    """A difference: older agents wake every watcher of a missing key at any write."""
    path = f"/v1/kv/{agent.name('missing')}"
    woken = agent.expected(UNRELATED_WRITE_WAKES_MISSING_KEY)
    wait = 10 if woken else 0.6
    index, began = agent.get(path).index, time.monotonic()
    blocked = agent.block(path, index, f"{wait}s")
    agent.consul.kv.put(agent.name("unrelated"), "x")
    answer, at = blocked.answer()
    assert answer.status == 404
    assert (at - began < wait) is woken


def test_an_unrelated_write_wakes_who_waits_for_a_missing_prefix(agent):
    """Its index is the whole store's: a watcher must compare content, not indexes."""
    path = f"/v1/kv/{agent.name('missing')}/?recurse"
    before = agent.get(path)
    agent.consul.kv.put(agent.name("unrelated"), "x")
    answer = agent.get(f"{path}&index={before.index}&wait=10s")
    assert (answer.status, answer.index > before.index) == (404, True)


def test_a_write_wakes_a_blocked_read_within_20_ms(agent):
    """The median of twenty writes, from before the write to the watcher's answer."""
    key = agent.name("fast")
    agent.consul.kv.put(key, "0")
    written = itertools.count(1)

    def median():
        latencies = []
        for _ in range(SAMPLES):
            blocked = agent.block(f"/v1/kv/{key}", agent.get(f"/v1/kv/{key}").index)
            began = time.monotonic()
            agent.put(f"/v1/kv/{key}", str(next(written)).encode())
            _, at = blocked.answer()
            latencies.append(at - began)
        return statistics.median(latencies)

    at_best(median, 0.020, "the wake")


# Transactions


def test_a_transaction_writes_and_reads_in_order(agent):
    """A written entry comes back without its value, a read one with it."""
    top = agent.name("txn")
    answer = agent.consul.txn.put(
        [
            op("set", f"{top}/1", b"one", Flags=3),
            op("get", f"{top}/1"),
            op("set", f"{top}/2", b"two"),
            op("get-tree", f"{top}/"),
            op("get-tree", f"{top}/none/"),
            op("delete", f"{top}/2"),
            op("check-not-exists", f"{top}/2"),
        ]
    )
    assert answer["Errors"] is None
    seen = [(each["KV"]["Key"], each["KV"]["Value"]) for each in answer["Results"]]
    one, two = (f"{top}/1", b64(b"one")), (f"{top}/2", b64(b"two"))
    assert seen == [(f"{top}/1", None), one, (f"{top}/2", None), one, two]
    assert agent.consul.kv.get(f"{top}/", keys=True)[1] == [f"{top}/1"]
    assert agent.consul.kv.get(f"{top}/1")[1]["Flags"] == 3


def test_several_trees_are_one_view_without_an_index(agent):
    """A transaction of reads does not block and has no index header."""
    left, right = agent.name("left"), agent.name("right")
    agent.consul.kv.put(f"{left}/a", "1")
    agent.consul.kv.put(f"{right}/b", "2")
    answer = agent.put("/v1/txn", [op("get-tree", f"{left}/"), op("get-tree", f"{right}/")])
    assert (answer.status, "x-consul-index" in answer.headers) == (200, False)
    assert [each["KV"]["Key"] for each in answer.json()["Results"]] == [f"{left}/a", f"{right}/b"]


def test_a_transaction_that_fails_changes_nothing(agent):
    """409 names every failed operation by its position."""
    top = agent.name("rollback")
    agent.consul.kv.put(f"{top}/old", "1")
    index = agent.get(f"/v1/kv/{top}/?recurse").index
    answer = agent.put(
        "/v1/txn",
        [
            op("set", f"{top}/new", b"x"),
            op("delete", f"{top}/old"),
            op("get", f"{top}/none"),
            op("cas", f"{top}/none", b"y", Index=5),
        ],
    )
    assert answer.status == 409
    body = answer.json()
    assert body["Results"] is None
    assert [error["OpIndex"] for error in body["Errors"]] == [2, 3]
    assert body["Errors"][0]["What"].endswith(f'key "{top}/none" doesn\'t exist')
    after = agent.get(f"/v1/kv/{top}/?recurse")
    assert [entry["Key"] for entry in after.json()] == [f"{top}/old"]
    assert after.index == index


def test_each_verb_that_compares(agent):
    """cas, delete-cas, check-index and check-not-exists succeed and fail on the index given."""
    key = agent.name("verbs")
    status = lambda *ops: agent.put("/v1/txn", list(ops)).status  # noqa: E731
    assert status(op("cas", key, b"1", Index=0)) == 200
    index = agent.consul.kv.get(key)[1]["ModifyIndex"]
    assert status(op("cas", key, b"2", Index=0)) == 409
    assert status(op("check-index", key, Index=index)) == 200
    assert status(op("check-index", key, Index=index + 1)) == 409
    assert status(op("check-index", f"{key}-none", Index=1)) == 409
    assert status(op("check-not-exists", key)) == 409
    assert status(op("delete-cas", key, Index=index + 1)) == 409
    assert status(op("cas", key, b"2", Index=index)) == 200
    assert status(op("delete-cas", f"{key}-none", Index=1)) == 200
    assert status(op("delete-tree", key)) == 200
    assert agent.get(f"/v1/kv/{key}").status == 404
    assert status(op("get-or-empty", key)) == agent.expected(GET_OR_EMPTY)
    assert status(op("bogus", key)) == 409
    assert status(op("set", "")) == 409


def test_a_transaction_has_at_most_64_operations_and_512_kib(agent):
    """413 says which limit it was, and nothing is written."""
    top = agent.name("limit")
    assert agent.put("/v1/txn", [op("set", f"{top}/{n}", b"x") for n in range(64)]).status == 200
    answer = agent.put("/v1/txn", [op("set", f"{top}/{n}", b"y") for n in range(65)])
    assert (answer.status, b"(65 > 64)" in answer.body) == (413, True)
    assert agent.get(f"/v1/kv/{top}/0?raw").body == b"x"
    assert agent.put("/v1/txn", [op("set", f"{top}/big", b"x" * LIMIT)]).status == 413


@pytest.mark.parametrize(
    "body", [b"", b"{", [{"KV": {"Verb": "set", "Key": "k", "Value": "%%"}}], [{"KV": {"Verb": 1}}]]
)
def test_a_transaction_that_cannot_be_read_is_refused(agent, body):
    """400 and the reason."""
    answer = agent.put("/v1/txn", body)
    assert answer.status == 400
    assert answer.body.startswith(b"Failed to parse body")


def test_an_empty_transaction_is_one(agent):
    """So are operations without content."""
    for body in ([], [{}], [{"KV": None}]):
        answer = agent.put("/v1/txn", body)
        assert (answer.status, answer.json()["Results"]) == (200, [])


def test_a_watcher_sees_a_transaction_whole(agent):
    """Twenty keys written at once are never seen half, where single writes are."""
    top = agent.name("atomic")
    path = f"/v1/kv/{top}/?recurse"

    def write(value):
        agent.put("/v1/txn", [op("set", f"{top}/{n}", value) for n in range(20)])

    write(b"0")
    before = agent.get(path)
    for number in range(1, 11):
        blocked = agent.block(path, before.index)
        write(str(number).encode())
        before, _ = blocked.answer()
        values = {base64.b64decode(entry["Value"]) for entry in before.json()}
        assert values == {str(number).encode()}
