"""The overview's first sentence: the first rule that holds, in words a person would say."""

from __future__ import annotations

from typing import Any

import pytest

from summary import _hours, _sentence

NOW_S = 1_700_000_000.0


def status(**capture: Any) -> dict[str, Any]:
    seen = {"state": "capturing", "sentence": "Capturing on eth0.", "since": NOW_S - 7200}
    return {
        "sample": False,
        "capture": {**seen, "last_packet_age_s": 1.0, **capture},
        "baseline": {"phase": "TRAINED", "sentence": "The live model votes."},
    }


def alert(severity: str, *, id: str = "inc-1", age_s: float = 0.0) -> dict[str, Any]:
    time_s = NOW_S - age_s
    why = "**10.0.0.5** tried **40 ports** on nas."
    return {
        "id": id,
        "severity": severity,
        "why": why,
        "first_time": time_s,
        "last_time": time_s,
    }


def said(told: dict[str, Any]) -> tuple[str, str]:
    return told["level"], told["sentence"]


def test_what_needs_somebody_comes_first_and_names_the_worst() -> None:
    opened = [
        alert("HIGH", id="inc-1"),
        alert("CRITICAL", id="inc-2", age_s=60),
        alert("CRITICAL", id="inc-3", age_s=30),
        alert("LOW", id="inc-4"),
    ]
    told = _sentence(status(), opened, NOW_S)
    assert said(told) == ("critical", "3 incidents need you, 2 are critical")
    assert told["detail"] == "10.0.0.5 tried 40 ports on nas. 1 other can wait."
    assert told["action"] == {
        "label": "Investigate the worst one",
        "href": "/live?tab=alerts&alert=inc-3",
    }
    one = _sentence(status(), [alert("HIGH")], NOW_S)
    assert said(one) == ("high", "1 incident needs you")


@pytest.mark.parametrize(
    ("capture", "level", "sentence"),
    [
        ({"state": "trouble", "sentence": "eth0 is down."}, "trouble", "Nothing is watched"),
        ({"state": "off"}, "trouble", "Nothing is watched"),
        ({"last_packet_age_s": 61.0}, "trouble", "No traffic arrives"),
        ({"last_packet_age_s": 59.0}, "quiet", "All quiet for 2 h"),
        ({"last_packet_age_s": None}, "quiet", "All quiet for 2 h"),
    ],
)
def test_a_capture_that_sees_nothing_is_told(
    capture: dict[str, Any], level: str, sentence: str
) -> None:
    told = _sentence(status(**capture), [], NOW_S)
    assert told["level"] == level
    assert told["sentence"].startswith(sentence)


def test_the_sample_never_passes_for_the_own_network() -> None:
    sample = {**status(), "sample": True}
    assert said(_sentence(sample, [], NOW_S)) == ("sample", "Sample traffic plays")
    assert _sentence(sample, [alert("HIGH")], NOW_S)["level"] == "high"


def test_learning_is_told_while_nothing_needs_anybody() -> None:
    learning = {**status(), "baseline": {"phase": "WARMING UP", "sentence": "12 of 500."}}
    told = _sentence(learning, [alert("LOW")], NOW_S)
    assert (*said(told), told["detail"]) == (
        "learning",
        "Getting to know your network",
        "12 of 500.",
    )


def test_quiet_counts_from_the_newest_evidence() -> None:
    told = _sentence(status(), [alert("LOW", age_s=900)], NOW_S)
    assert said(told) == ("quiet", "All quiet for 15 min")
    assert told["detail"] == "1 incident of lower severity can wait."


def test_every_incident_of_the_day_stands_in_its_hour() -> None:
    hours = _hours([alert("HIGH"), alert("LOW", age_s=3600), alert("LOW", age_s=30 * 3600)], NOW_S)
    assert len(hours) == 24
    assert (hours[-1]["HIGH"], hours[-2]["LOW"]) == (1, 1)
    assert sum(hour[name] for hour in hours for name in ("CRITICAL", "HIGH", "MEDIUM", "LOW")) == 2
    assert hours[-1]["start"] <= NOW_S < hours[-1]["start"] + 3600
