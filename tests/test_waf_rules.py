"""Recommendations: the action follows severity and proof, and only parsed values enter a rule."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import waf_rules
from alerts.record import PATTERNS, opened
from batches import SEVERITIES
from tests.incident_evidence import T0

SOURCE = "203.0.113.50"
TARGET = "192.168.1.20"


def recommend(subpattern: str, severity: str, **changed: Any) -> dict[str, Any]:
    whitelisted = changed.pop("whitelisted", False)
    is_local = changed.pop("is_local", lambda address: address.startswith(("10.", "192.168.")))
    record = opened(
        "inc-1",
        f"secureflux-{int(T0)}",
        key_is=changed.pop("key_is", "source"),
        pattern=PATTERNS.get(subpattern, "ANOMALY"),
        subpattern=subpattern,
        src_ip=SOURCE,
        dst_ip=TARGET,
        protocol="TCP",
        time_s=T0,
    )
    record.update(severity=severity, spoofable=False, ports=[22], count=400, title="Port scan")
    record.update(changed)
    return waf_rules.recommend(record, whitelisted=whitelisted, is_local=is_local)


PAIR = f"{SOURCE}->{TARGET}"
ENDPOINT = f"{SOURCE}->{TARGET}:22/tcp"


@pytest.mark.parametrize(
    ("subpattern", "severity", "action", "scope", "duration_s"),
    [
        ("VERTICAL_SCAN", "LOW", "MONITOR_ONLY", SOURCE, 600),
        ("VERTICAL_SCAN", "MEDIUM", "RATE_LIMIT_IP", SOURCE, 600),
        ("VERTICAL_SCAN", "HIGH", "TEMP_BLOCK_IP", SOURCE, 600),
        ("VERTICAL_SCAN", "CRITICAL", "TEMP_BLOCK_IP", SOURCE, 3600),
        ("HTTP_BURST", "HIGH", "RATE_LIMIT_IP", SOURCE, 600),
        ("HTTP_BURST", "CRITICAL", "TEMP_BLOCK_IP", SOURCE, 600),
        ("CREDENTIAL_GUESSING", "MEDIUM", "RATE_LIMIT_IP", ENDPOINT, 600),
        ("CREDENTIAL_GUESSING", "HIGH", "TEMP_BLOCK_IP", ENDPOINT, 1800),
        ("CREDENTIAL_GUESSING", "CRITICAL", "TEMP_BLOCK_IP", SOURCE, 3600),
        ("PASSWORD_SPRAY", "HIGH", "TEMP_BLOCK_IP", SOURCE, 1800),
        ("EXFILTRATION", "MEDIUM", "MONITOR_ONLY", SOURCE, 600),
        ("EXFILTRATION", "HIGH", "TEMP_BLOCK_IP", PAIR, 1800),
        ("BEACON", "CRITICAL", "TEMP_BLOCK_IP", PAIR, 3600),
        ("LATERAL_ADMIN", "HIGH", "TEMP_BLOCK_IP", PAIR, 600),
        ("REPEATED_PAIR", "MEDIUM", "RATE_LIMIT_IP", PAIR, 600),
        ("DDOS_MANY_SOURCES", "HIGH", "RATE_LIMIT_ENDPOINT", f"*->{TARGET}:22/tcp", 600),
        ("ANOMALY", "HIGH", "MONITOR_ONLY", SOURCE, 600),
        ("ANOMALY", "CRITICAL", "RATE_LIMIT_IP", PAIR, 600),
        ("UDP_SCAN", "CRITICAL", "MONITOR_ONLY", SOURCE, 600),
        ("NEW_DEVICE", "CRITICAL", "MONITOR_ONLY", SOURCE, 600),
    ],
)
def test_action_scope_and_duration_follow_pattern_and_severity(
    subpattern: str, severity: str, action: str, scope: str, duration_s: int
) -> None:
    rule = recommend(subpattern, severity)
    assert (rule["action"], rule["scope"]["value"]) == (action, scope)
    assert rule["conditions"]["duration_seconds"] == duration_s
    limited = action.startswith("RATE_LIMIT")
    assert rule["conditions"]["threshold"] == ("50 req/sec" if limited else None)
    assert rule["requires_admin_approval"] is True
    assert rule["rule_id"] == "secureflux-1769437845"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"spoofable": True}, "forged"),
        ({"whitelisted": True}, "whitelist"),
        ({"src_ip": "192.168.1.5"}, "your own hosts"),
        ({"is_local": lambda address: address == SOURCE}, "your own hosts"),
        ({"src_ip": "127.0.0.1"}, "no address that a rule could name"),
        ({"src_ip": "fe80::1%eth0"}, "no address that a rule could name"),
        ({"src_ip": "224.0.0.1"}, "no address that a rule could name"),
        ({"src_ip": "aa:bb:cc:dd:ee:ff"}, "no address that a rule could name"),
    ],
)
def test_what_must_not_be_blocked_is_watched_with_a_reason(
    changed: dict[str, Any], reason: str
) -> None:
    rule = recommend("VERTICAL_SCAN", "HIGH", **changed)
    assert rule["action"] == "MONITOR_ONLY"
    assert reason in rule["reason"]


def test_an_inside_source_is_blocked_at_critical_only() -> None:
    assert recommend("VERTICAL_SCAN", "CRITICAL", src_ip="10.0.0.5")["action"] == "TEMP_BLOCK_IP"


def test_a_flow_alone_needs_three_alerts() -> None:
    assert recommend("ANOMALY", "CRITICAL", count=2)["action"] == "MONITOR_ONLY"
    assert recommend("ANOMALY", "CRITICAL", count=3)["action"] == "RATE_LIMIT_IP"


def test_ipv6_is_canonical_and_in_brackets() -> None:
    rule = recommend("CREDENTIAL_GUESSING", "HIGH", src_ip="2001:DB8:0::1", dst_ip="2001:db8::0:2")
    assert rule["scope"]["value"] == "2001:db8::1->[2001:db8::2]:22/tcp"


def test_several_ports_are_no_endpoint() -> None:
    rule = recommend("CREDENTIAL_GUESSING", "HIGH", ports=[22, 2222])
    assert rule["scope"] == {"type": "SRC_DST_PAIR", "value": PAIR}
    assert recommend("DDOS_MANY_SOURCES", "HIGH", ports=[])["action"] == "MONITOR_ONLY"


V4 = r"\d{1,3}(?:\.\d{1,3}){3}"
ADDRESS = rf"(?:{V4}|[0-9a-f:]*:[0-9a-f:.]*)"
SCOPES = {
    "SOURCE_IP": rf"{ADDRESS}",
    "SRC_DST_PAIR": rf"{ADDRESS}->{ADDRESS}",
    "ENDPOINT": rf"(?:\*|{ADDRESS})->(?:{V4}|\[[0-9a-f:.]+\]):\d{{1,5}}/(?:tcp|udp)",
}
"""The scopes of rule.schema.json."""

TEXTS = st.one_of(
    st.ip_addresses().map(str), st.sampled_from(["", "10.0.0.1\n", "1.2.3.4;x"]), st.text()
)


@given(
    subpattern=st.sampled_from([*PATTERNS, "SUMMARY", "ELSE"]),
    severity=st.sampled_from(SEVERITIES),
    source=TEXTS,
    target=TEXTS,
    protocol=st.sampled_from(["TCP", "UDP", "ICMP", "ARP", "IP 47"]),
    ports=st.lists(st.integers(1, 65_535), max_size=2),
    key_is=st.sampled_from(["source", "target", "summary"]),
    spoofable=st.booleans(),
)
def test_only_parsed_values_enter_a_rule_and_forged_sources_are_never_blocked(
    subpattern: str,
    severity: str,
    source: str,
    target: str,
    protocol: str,
    ports: list[int],
    key_is: str,
    spoofable: bool,
) -> None:
    rule = recommend(
        subpattern,
        severity,
        src_ip=source,
        dst_ip=target,
        protocol=protocol,
        ports=ports,
        key_is=key_is,
        spoofable=spoofable,
    )
    kind, value = rule["scope"]["type"], rule["scope"]["value"]
    assert re.fullmatch(SCOPES[kind], value)
    for part in re.split(r"->|/", value):
        host = part.rsplit(":", 1)[0] if kind == "ENDPOINT" and ":" in part else part
        if host not in ("*", "tcp", "udp") and kind != "ENDPOINT":
            assert str(ipaddress.ip_address(host)) == host
    if spoofable:
        assert rule["action"] in ("MONITOR_ONLY", "RATE_LIMIT_ENDPOINT")
    if rule["action"] in ("RATE_LIMIT_IP", "TEMP_BLOCK_IP"):
        assert not value.startswith("*")
    assert rule["reason"].endswith(".")
    assert len(rule["reason"]) <= 500
    assert rule["sentence"].endswith(".")
