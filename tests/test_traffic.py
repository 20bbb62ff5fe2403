"""Traffic by steps of time: rates, their usual range, the busiest devices."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from batches import PACKET, Rows
from traffic import STEP_S, Traffic

START_S = 1_700_000_000
NS = 1_000_000_000


def feed(traffic: Traffic, seconds: Iterable[float]) -> None:
    """Packets of 1,000 bytes at these times, one a batch."""
    for second in seconds:
        rows: Rows = np.zeros(1, PACKET)
        rows["time_ns"] = int((START_S + second) * NS)
        rows["wire_length"] = 1000
        traffic.add_packets(rows)


def test_a_step_counts_what_came_in_it() -> None:
    traffic = Traffic()
    feed(traffic, [0, 1, 2, 7])
    traffic.add_flows(START_S + 7, 6)
    traffic.move_to(START_S + 3 * STEP_S)
    assert traffic.series("packets_per_s", points=60)["values"] == [3 / 5, 1 / 5, 0.0]
    assert traffic.series("bits_per_s", points=60)["values"] == [4800.0, 1600.0, 0.0]
    flows = traffic.series("flows_per_minute", points=2)
    assert (flows["values"], flows["start"]) == ([72.0, 0.0], START_S + STEP_S)


def test_the_step_that_is_still_filling_is_no_low_point() -> None:
    traffic = Traffic()
    feed(traffic, [0, 1, 2, 5])
    assert traffic.series("packets_per_s", points=60)["values"] == [3 / 5]


def test_a_usual_range_is_claimed_after_ten_minutes() -> None:
    traffic = Traffic()
    feed(traffic, (STEP_S * i for i in range(119)))
    assert traffic.series("packets_per_s", points=60)["low"] is None
    feed(traffic, (STEP_S * i for i in range(119, 125)))
    series = traffic.series("packets_per_s", points=60)
    assert (series["low"], series["high"], len(series["values"])) == (0.2, 0.2, 60)


def test_a_gap_is_silence_and_an_hour_is_all_that_is_kept() -> None:
    traffic = Traffic()
    feed(traffic, [0])
    traffic.add_device("10.0.0.1", 500)
    traffic.move_to(START_S + 3 * STEP_S)
    assert traffic.series("packets_per_s", points=60)["values"] == [0.2, 0.0, 0.0]
    traffic.move_to(START_S + 2 * 3600)
    series = traffic.series("packets_per_s", points=10_000)
    assert len(series["values"]) == 3600 // STEP_S - 1
    assert not any(series["values"])
    assert traffic.busiest(5) == []


def test_the_busiest_devices_come_first() -> None:
    traffic = Traffic()
    traffic.move_to(START_S)
    for address, size in (("10.0.0.1", 10), ("10.0.0.2", 300), ("10.0.0.1", 400)):
        traffic.add_device(address, size)
    told = [(one["address"], one["bytes"]) for one in traffic.busiest(1)]
    assert told == [("10.0.0.1", 410)]


def test_a_clock_that_is_set_back_begins_anew() -> None:
    traffic = Traffic()
    feed(traffic, [0, 5, 10, -3600])
    traffic.move_to(START_S - 3600 + 2 * STEP_S)
    assert traffic.series("packets_per_s", points=60)["values"] == [0.2, 0.0]


def test_a_batch_may_span_many_steps_from_the_first_on() -> None:
    """A reader that had to wait, or a second interface whose frames come later."""
    traffic = Traffic()
    for _ in range(2):
        rows: Rows = np.zeros(4, PACKET)
        rows["time_ns"] = (START_S + STEP_S * np.array([3, 0, 1, 2])) * NS
        traffic.add_packets(rows)
    traffic.move_to(START_S + 4 * STEP_S)
    assert traffic.series("packets_per_s", points=60)["values"] == [0.4] * 4
