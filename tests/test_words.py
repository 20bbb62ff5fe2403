"""Words: numbers as people say them, sentences that claim only what was seen, and stay short."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import decision_words
import words
from alerts.record import PATTERNS, opened
from tests.incident_evidence import T0

AMOUNTS = {
    "ports": 412,
    "hosts": 31,
    "connections": 186,
    "packets": 51_000,
    "packets_per_s": 1234.5,
    "bytes": 1.9e9,
    "queries": 940,
    "contacts": 47,
    "interval_s": 60.0,
    "devices": 2,
    "alerts": 12,
    "failed": 408,
    "seconds": 38.0,
    "usual_low": 1,
    "usual_high": 3,
}


def incident(subpattern: str, **changed: Any) -> dict[str, Any]:
    record = opened(
        "inc-1",
        "secureflux-1769437845",
        key_is="source",
        pattern=PATTERNS.get(subpattern, "ANOMALY"),
        subpattern=subpattern,
        src_ip="203.0.113.50",
        dst_ip="192.168.1.20",
        protocol="TCP",
        time_s=T0,
    )
    record.update(
        sources=["203.0.113.50"],
        targets=["192.168.1.20"],
        ports=[22],
        kinds=["window"],
        amounts=dict(AMOUNTS),
        names={"src": None, "dst": "nas"},
    )
    record.update(changed)
    return record


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1.9e9, "1,900,000,000"),
        (1234.5, "1,230"),
        (0.000123456, "0.000123"),
        (9.996, "10"),
        (-42.25, "-42.2"),
        (1.0, "1"),
        (math.nan, "no data"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (820, "820 B"),
        (999, "999 B"),
        (999.6, "1 kB"),
        (1000, "1 kB"),
        (1.9e9, "1.9 GB"),
        (14_300_000, "14.3 MB"),
        (5e18, "5,000 PB"),
    ],
)
def test_sizes_are_si_bytes(value: float, text: str) -> None:
    assert words.size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0006, "600 µs"),
        (0.0421, "42.1 ms"),
        (0.9996, "1 s"),
        (3.42, "3.4 s"),
        (38, "38 s"),
        (119.4, "119 s"),
        (150, "2 min 30 s"),
        (842, "14 min"),
        (3600, "60 min"),
        (11_520, "3 h 12 min"),
        (7200, "2 h"),
        (3 * 86_400, "3 days"),
        (math.inf, "no data"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (842e6, "us", "14 min"),
        (1.9e9, "bytes", "1.9 GB"),
        (2.3e6, "bytes/s", "2.3 MB/s"),
        (25.1e6, "bit/s", "25.1 Mbit/s"),
        (1, "packets", "1 packet"),
        (40, "packets/s", "40 packets/s"),
        (3, "count", "3"),
        (0.25, "ratio", "0.25"),
        (1.0, "yes or no", "yes"),
        (0.0, "yes or no", "no"),
    ],
)
def test_amounts_follow_their_unit(value: float, unit: str, text: str) -> None:
    assert words.amount(value, unit) == text


def test_rarity_is_never_finer_than_the_reference() -> None:
    assert words.rarity(10, 4512, False) == "common"
    assert words.rarity(2345, 4512, False) == "1 in 2,300"
    assert words.rarity(9e9, 4512, False) == "1 in 4,500"
    assert words.rarity(9e9, 4512, True) == "rarest of 4,512"
    assert words.rarity(None, 0, False) == "no data"


def test_services_have_the_names_people_know() -> None:
    assert words.service(22, "TCP") == "SSH"
    assert words.service(53, 17) == "DNS"
    assert words.service(51_234, 6) == "TCP port 51234"
    assert words.service(None, 1) == "ICMP"
    assert words.service(0, 132) == "SCTP"


def test_the_day_is_named_when_it_is_not_today() -> None:
    assert len(words.clock(T0, T0)) == len("14:32:07")
    assert words.clock(T0 - 2 * 86_400, T0).startswith("2026-01-2")


TITLES = {
    "EXFILTRATION": "Large upload from 203.0.113.50",
    "VERTICAL_SCAN": "Port scan from 203.0.113.50",
    "CREDENTIAL_GUESSING": "Repeated SSH connections to nas",
    "REPEATED_PAIR": "Repeated SSH connections to nas",
    "HTTP_BURST": "Burst of SSH from 203.0.113.50",
    "BEACON": "Clockwork traffic from 203.0.113.50",
    "NEW_DEVICE": "New device talking: 203.0.113.50",
    "ANOMALY": "Unusual SSH traffic from 203.0.113.50",
    "SOMETHING_NEW": "Unusual SSH traffic from 203.0.113.50",
}


@pytest.mark.parametrize("subpattern", TITLES)
def test_titles_are_those_of_the_pages(subpattern: str) -> None:
    assert words.title(incident(subpattern)) == TITLES[subpattern]


WHY = {
    "VERTICAL_SCAN": "**203.0.113.50** tried **412 ports** on **nas** in 38 s. Usual: 1 to 3.",
    "BEACON": "**203.0.113.50** called **nas** every **60 s**, **47 times**. Usual: 1 to 3.",
    "CREDENTIAL_GUESSING": "**203.0.113.50** opened **186 alike connections** to SSH on **nas** "
    "in 38 s. Usual: 1 to 3.",
    "SYN_FLOOD": "**203.0.113.50** sent **1,230 packets/s** of connection attempts to **nas**. "
    "Usual: 1 to 3.",
}


@pytest.mark.parametrize("subpattern", WHY)
def test_why_says_who_did_how_much_to_whom(subpattern: str) -> None:
    assert words.why(incident(subpattern)) == WHY[subpattern]


def test_short_is_the_line_under_the_title() -> None:
    assert words.short(incident("VERTICAL_SCAN")) == (
        "Tried **412 ports** on nas in 38 s. Usual: 1 to 3."
    )


def test_the_second_sentence_says_what_is_known() -> None:
    amounts = {"ports": 412, "failed": 408}
    assert words.why(incident("VERTICAL_SCAN", amounts=amounts)).endswith(
        "**408** had no answer or were refused."
    )
    amounts = {"hosts": 40, "failed": 40}
    assert words.why(incident("ICMP_SWEEP", amounts=amounts)).endswith("None of them answered.")
    assert words.why(incident("VERTICAL_SCAN", amounts={})) == (
        "**203.0.113.50** tried many ports on **nas**."
    )


@pytest.mark.parametrize("subpattern", [*PATTERNS, "SUMMARY", "SOMETHING_NEW"])
@settings(max_examples=30, deadline=None)
@given(
    kept=st.sets(st.sampled_from(sorted(AMOUNTS))),
    others=st.integers(0, 3),
    key_is=st.sampled_from(["source", "target"]),
    name=st.text(max_size=300),
)
def test_every_sentence_is_short_whatever_is_known(
    subpattern: str, kept: set[str], others: int, key_is: str, name: str
) -> None:
    addresses = [f"10.0.0.{i}" for i in range(others + 1)]
    record = incident(
        subpattern,
        amounts={k: AMOUNTS[k] for k in kept},
        sources=addresses,
        targets=addresses,
        key_is=key_is,
        names={"src": name, "dst": name},
    )
    for sentence in (words.why(record), words.short(record)):
        assert len(sentence.split()) <= 32
        assert sentence.count(". ") <= 1
        assert sentence.endswith(".")
        assert sentence.count("**") % 2 == 0
        assert "{" not in words.why({**record, "names": {"src": None, "dst": None}})
        assert "!" not in words.why({**record, "names": {"src": None, "dst": None}})
    assert words.title(record)


def test_names_from_traffic_cannot_break_a_sentence() -> None:
    assert words.plain("a\nb **c**\u202ed") == "a-b-cd"
    assert words.plain("x" * 300) == "x" * 39 + "…"
    record = incident("BEACON", names={"src": "{dst} **" + "y" * 300, "dst": None})
    assert words.title(record).startswith("Clockwork traffic from {dst}-yyy")


def test_a_deviation_is_said_with_its_usual_range() -> None:
    one = {"label": "Bytes sent", "unit": "bytes", "value": 1.9e9, "low": 4e4, "high": 1.4e7}
    assert words.deviation(one) == "Bytes sent **1.9 GB**, usually 40 kB to 14 MB"
    assert words.deviation({**one, "low": 0, "high": 0}) == "Bytes sent **1.9 GB**, usually 0 B"


def test_a_deviation_within_its_range_is_said_with_what_would_have_been_ordinary() -> None:
    one = {"label": "Bytes sent", "unit": "bytes", "value": 9e4, "low": 4e4, "high": 1.4e7}
    like = {**one, "ordinary": 310.0}
    assert words.deviation(like) == "Bytes sent **90 kB**, 310 B in flows like it"
    assert words.deviation({**like, "value": 1.9e9}).endswith("usually 40 kB to 14 MB")
    # What reads the same says nothing.
    assert words.deviation({**like, "ordinary": 90_001.0}).endswith("usually 40 kB to 14 MB")


@pytest.mark.parametrize(
    ("action", "value", "threshold", "sentence"),
    [
        ("TEMP_BLOCK_IP", "10.0.0.1->10.0.0.2", None, "Block 10.0.0.1 → 10.0.0.2 for 60 min."),
        ("MONITOR_ONLY", "10.0.0.1", None, "Watch 10.0.0.1; no rule is recommended."),
        (
            "RATE_LIMIT_ENDPOINT",
            "*->10.0.0.2:22/tcp",
            "50 req/sec",
            "Limit any source → 10.0.0.2:22/tcp to 50 requests per second for 60 min.",
        ),
        (
            "RATE_LIMIT_IP",
            "10.0.0.1",
            "50 req/sec",
            "Limit 10.0.0.1 to 50 requests per second for 60 min.",
        ),
    ],
)
def test_a_rule_is_one_sentence(
    action: str, value: str, threshold: str | None, sentence: str
) -> None:
    recommendation = {
        "action": action,
        "scope": {"type": "SOURCE_IP", "value": value},
        "conditions": {"threshold": threshold, "duration_seconds": 3600},
    }
    assert words.rule(recommendation) == sentence


def test_a_false_positive_says_what_it_does() -> None:
    suppression = {"scope": "Port scan from 10.0.0.5"}
    said = decision_words.consequences("false", 3, 1, False, suppression, (2, 0))
    assert said == [
        "This incident and 2 similar open ones leave the list.",
        "1 flow joins the Live model only if you choose to learn.",
        "For 30 days this is hidden and counted: Port scan from 10.0.0.5.",
        "It would have hidden 2 incidents of the last 7 days, this one included.",
    ]
    assert decision_words.consequences("false", 1, 0, False, None, (1, 0)) == [
        "This incident leaves the list. No similar one is open.",
        "The Live model learns nothing: no single flow was the evidence.",
    ]


def test_deviations_have_the_specifications_names() -> None:
    told = {
        value: words.deviation_name(
            {"feature": "Flow Duration", "value": value, "low": 2.0, "high": 9.0}
        )
        for value in (10.0, 1.0, 5.0)
    }
    assert told == {
        10.0: "Flow Duration High",
        1.0: "Flow Duration Low",
        5.0: "Flow Duration Unusual",
    }
