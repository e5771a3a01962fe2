"""The queue and its thread: what is accepted is delivered, or counted by its reason."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

import pytest

from chassis.adapters.otlp import RecordsDropped, Shipper, ShippingFailed, ShippingRecovered
from chassis.adapters.otlp._outcome import Delivered, Payload, Refused, TryAgain
from chassis.adapters.otlp._retry import Backoff
from chassis.core import EventBus
from tests.support.waiting import wait_until


class Script:
    """An exporter that answers as it is told, and then takes everything."""

    receiver = "http://receiver"

    def __init__(self, *answers: Delivered | TryAgain | Refused) -> None:
        self.answers = deque(answers)
        self.always: Delivered | TryAgain | Refused = Delivered()
        self.batches: list[list[int]] = []
        self.sent: list[tuple[float, float]] = []
        self.gate: threading.Event | None = None
        self.unencodable = 0
        self.closed = self.forgotten = 0
        self._last: list[int] = []

    def prepare(self, batch: Sequence[int]) -> Payload:
        if -1 in batch:
            raise KeyError("a mistake")
        self._last = list(batch)
        return Payload(b"", len(batch) - self.unencodable)

    def send(self, payload: Payload, limit: float) -> Delivered | TryAgain | Refused:
        self.sent.append((time.monotonic(), limit))
        if self.gate is not None:
            self.gate.wait(min(limit, 10))
        answer = self.answers.popleft() if self.answers else self.always
        if isinstance(answer, Delivered):
            self.batches.append(self._last)
        return answer

    def forget(self) -> None:
        self.forgotten += 1

    def close(self) -> None:
        self.closed += 1


def quick() -> Backoff:
    return Backoff(lambda low, high: 0.01)


def make(
    script: Script, bus: EventBus | None = None, backoff: Backoff | None = None, **options: int
) -> Shipper[int]:
    settings = {"bound": 100, "batch": 10, "linger": 0.02} | options
    return Shipper("logs", script, backoff=backoff or quick(), bus=bus or EventBus(), **settings)  # type: ignore[arg-type]


@pytest.fixture
def script() -> Iterator[Script]:
    made = Script()
    yield made
    if made.gate is not None:
        made.gate.set()


def fill(shipper: Shipper[int], count: int) -> None:
    for number in range(count):
        assert shipper.accept(number)


def settled(shipper: Shipper[int]) -> dict[str, int]:
    counts = shipper.counts
    assert counts.accepted == counts.delivered + counts.pending + sum(counts.dropped.values())
    return counts.dropped


def test_everything_is_delivered_in_order_and_in_batches(script: Script) -> None:
    """Full batches at once, the rest after the linger."""
    shipper = make(script)
    fill(shipper, 25)
    wait_until(lambda: shipper.counts.delivered == 25)
    assert [number for batch in script.batches for number in batch] == list(range(25))
    assert max(map(len, script.batches)) <= 10
    assert shipper.close(1)
    assert script.closed == 1


def test_a_full_batch_does_not_wait_for_the_linger(script: Script) -> None:
    """And an incomplete one does not wait for more than it."""
    shipper = make(script, linger=30)
    fill(shipper, 9)
    assert script.sent == []
    fill(shipper, 1)
    wait_until(lambda: shipper.counts.delivered == 10)
    assert shipper.close(1)


def test_no_thread_before_the_first_record(script: Script) -> None:
    """Configured and unused costs nothing."""
    names = {thread.name for thread in threading.enumerate()}
    shipper = make(script)
    assert {thread.name for thread in threading.enumerate()} == names
    assert shipper.flush(0.1)
    assert shipper.close(0.1)


def test_flush_waits_for_what_was_accepted_before_it(script: Script) -> None:
    """At once when told, not after the linger."""
    shipper = make(script, linger=30)
    fill(shipper, 3)
    assert shipper.flush(5)
    assert shipper.counts.delivered == 3
    assert shipper.close(1)


def test_flush_is_bounded_and_says_so(script: Script) -> None:
    """A receiver that hangs holds nobody longer than was allowed."""
    script.gate = threading.Event()
    shipper = make(script)
    fill(shipper, 3)
    begun = time.monotonic()
    assert shipper.flush(0.1) is False
    assert time.monotonic() - begun < 5  # it hangs until it is let go
    script.gate.set()
    assert shipper.flush(5)
    assert shipper.close(1)


def test_flush_says_when_something_was_dropped(script: Script) -> None:
    """Settled is not delivered."""
    script.answers.append(Refused("http_400"))
    shipper = make(script)
    fill(shipper, 3)
    assert shipper.flush(5) is False
    assert settled(shipper) == {"http_400": 3}
    assert shipper.close(1) is False


def test_a_receiver_that_is_away_is_tried_again_until_it_takes_it(script: Script) -> None:
    """However often; the batch is neither lost nor doubled, and the order stays."""
    script.answers.extend([TryAgain("ConnectError")] * 7)
    shipper = make(script)
    fill(shipper, 12)
    wait_until(lambda: shipper.counts.delivered == 12)
    assert [number for batch in script.batches for number in batch] == list(range(12))
    assert settled(shipper) == {}
    assert shipper.close(1)


def test_case_5_what_the_receiver_asks_for_is_waited(script: Script) -> None:
    """Not less, and nothing else is sent meanwhile."""
    script.answers.append(TryAgain("http_429", 0.3))
    shipper = make(script)
    fill(shipper, 10)
    wait_until(lambda: len(script.sent) == 1)
    fill(shipper, 20)
    assert shipper.flush(5)
    assert script.sent[1][0] - script.sent[0][0] >= 0.3
    assert shipper.close(1)


def test_a_flush_cuts_the_backoff_short_but_not_what_the_receiver_asked_for(script: Script) -> None:
    """At shutdown a receiver that is back is not missed for a backoff of half a minute."""
    script.answers.append(TryAgain("ConnectError"))
    shipper = make(script, backoff=Backoff(lambda low, high: 30))
    fill(shipper, 3)
    wait_until(lambda: len(script.sent) == 1)
    assert shipper.flush(5)
    script.answers.append(TryAgain("http_503", 30))
    fill(shipper, 3)
    wait_until(lambda: len(script.sent) == 3)
    assert shipper.flush(0.1) is False
    assert len(script.sent) == 3
    assert shipper.close(0.1) is False
    assert settled(shipper) == {"shutdown": 3}


def test_case_11_what_a_partial_success_rejects_is_counted_and_not_sent_again(script: Script) -> None:
    """The specification forbids it."""
    script.answers.append(Delivered(rejected=3))
    shipper = make(script)
    fill(shipper, 10)
    assert shipper.flush(5) is False
    assert (shipper.counts.delivered, settled(shipper), len(script.sent)) == (7, {"rejected": 3}, 1)
    shipper.close(1)


def test_what_cannot_be_encoded_is_counted_and_the_rest_goes(script: Script) -> None:
    """One odd record does not cost its neighbours."""
    script.unencodable = 1
    shipper = make(script)
    fill(shipper, 10)
    shipper.flush(5)
    assert (shipper.counts.delivered, settled(shipper)) == (9, {"encode_error": 1})
    shipper.close(1)


def test_a_batch_of_which_nothing_can_be_encoded_is_not_sent(script: Script) -> None:
    """There is nothing to send."""
    script.unencodable = 3
    shipper = make(script)
    fill(shipper, 3)
    shipper.flush(5)
    assert (script.sent, settled(shipper)) == ([], {"encode_error": 3})
    shipper.close(1)


def test_a_mistake_of_ours_does_not_end_the_thread(script: Script) -> None:
    """It is counted by its type, and what comes after is delivered."""
    shipper = make(script)
    shipper.accept(-1)
    shipper.flush(5)
    fill(shipper, 3)
    assert shipper.flush(5)
    assert (shipper.counts.delivered, settled(shipper)) == (3, {"error_KeyError": 1})
    shipper.close(1)


def test_case_3_a_queue_that_is_full_drops_the_oldest_and_counts_it(script: Script) -> None:
    """No caller waits; the newest is worth most."""
    script.gate = threading.Event()
    shipper = make(script, bound=20)
    fill(shipper, 10)
    wait_until(lambda: len(script.sent) == 1)
    for number in range(10, 45):
        assert shipper.accept(number)
    assert settled(shipper) == {"queue_full": 15}
    script.gate.set()
    assert shipper.flush(5)
    assert [number for batch in script.batches for number in batch] == [*range(10), *range(25, 45)]
    assert shipper.close(1) is False


def test_case_22_a_receiver_that_is_down_at_shutdown_costs_the_time_allowed_and_is_counted(
    script: Script,
) -> None:
    """Not more, and the books close."""
    script.always = TryAgain("ConnectError")
    shipper = make(script, linger=30)
    fill(shipper, 25)
    begun = time.monotonic()
    assert shipper.close(0.2) is False
    assert time.monotonic() - begun < 5  # the pauses between its attempts alone are longer
    assert (settled(shipper), shipper.counts.pending) == ({"shutdown": 25}, 0)


def test_a_request_that_hangs_at_shutdown_is_left_behind(script: Script) -> None:
    """What comes of it later changes no count."""
    script.gate = threading.Event()
    shipper = make(script)
    fill(shipper, 10)
    wait_until(lambda: len(script.sent) == 1)
    begun = time.monotonic()
    assert shipper.close(0.1) is False
    assert time.monotonic() - begun < 5  # it hangs until it is let go
    before = shipper.counts
    script.gate.set()
    wait_until(lambda: script.closed == 1)
    assert shipper.counts == before
    assert before.dropped == {"shutdown": 10}


def test_requests_at_shutdown_get_the_time_that_is_left(script: Script) -> None:
    """The exporter's own timeout may be longer."""
    script.answers.append(TryAgain("ConnectError"))
    shipper = make(script, linger=30)
    fill(shipper, 3)
    assert shipper.close(2.0)
    assert all(limit <= 2.0 for _, limit in script.sent)


def test_what_is_accepted_before_close_is_delivered_by_it(script: Script) -> None:
    """Counts equal, whatever stands in the queue; and nothing is taken afterwards."""
    shipper = make(script, linger=30, bound=1_000)
    fill(shipper, 995)
    assert shipper.close(5)
    assert shipper.counts.delivered == 995
    assert shipper.accept(1) is False
    assert (shipper.counts.accepted, shipper.counts.refused) == (995, 1)
    assert shipper.close(5)


def test_case_26_the_books_close_under_many_threads(script: Script) -> None:
    """Accepted = delivered + pending + dropped, at every moment."""
    shipper = make(script, bound=50)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            shipper.accept(0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        settled(shipper)
    stop.set()
    for thread in threads:
        thread.join()
    shipper.close(5)
    settled(shipper)
    assert shipper.counts.pending == 0


def test_case_25_what_the_shipping_itself_says_is_not_shipped(script: Script) -> None:
    """Otherwise each failure would ship a record of its own."""
    bus = EventBus()
    shipper = make(script, bus)
    bus.subscribe(lambda event: shipper.accept(99) and None)
    script.answers.append(TryAgain("ConnectError"))
    fill(shipper, 3)
    assert shipper.flush(5)
    assert (shipper.counts.accepted, shipper.counts.refused) == (3, 2)
    assert shipper.close(1)


def test_a_flush_from_the_shipping_thread_does_not_wait_for_itself(script: Script) -> None:
    """A listener may call it."""
    bus = EventBus()
    answers: list[bool] = []
    shipper = make(script, bus)
    bus.subscribe(lambda event: answers.append(shipper.flush(30)))
    script.answers.append(TryAgain("ConnectError"))
    fill(shipper, 3)
    assert shipper.flush(5)
    assert answers == [False, False]
    shipper.close(1)


def test_outages_and_losses_are_events(script: Script) -> None:
    """Failing and recovering once each; a loss by its reason, and the last word at the end."""
    told: list[object] = []
    bus = EventBus()
    bus.subscribe(told.append)
    script.answers.extend(
        [TryAgain("http_503")] * 3 + [Delivered(), Refused("http_400"), Refused("http_400")]
    )
    shipper = make(script, bus)
    fill(shipper, 1)
    shipper.flush(5)
    for _ in range(2):
        fill(shipper, 1)
        shipper.flush(5)
    shipper.close(5)
    shown = [(type(event), getattr(event, "reason", ""), getattr(event, "count", 0)) for event in told]
    assert shown == [
        (ShippingFailed, "http_503", 0),
        (ShippingRecovered, "", 0),
        (ShippingFailed, "http_400", 0),
        (RecordsDropped, "http_400", 1),
        (RecordsDropped, "http_400", 2),
    ]
    assert {(event.subject, event.receiver) for event in told} == {("logs", "http://receiver")}  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_case_19_a_forked_child_ships_its_own_and_no_others(script: Script) -> None:
    """A thread of its own, an empty queue, new connections; the parent is not disturbed."""
    shipper = make(script, linger=30)
    fill(shipper, 5)
    child = os.fork()
    if child == 0:
        good = shipper.counts.pending == 0 and script.forgotten == 1
        shipper.accept(77)
        good = good and shipper.close(5) and script.batches == [[77]]
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert shipper.close(5)
    assert script.batches == [[0, 1, 2, 3, 4]]
    assert script.forgotten == 0
