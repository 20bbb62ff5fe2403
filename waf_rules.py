"""What rule would stop an incident: a neutral recommendation that an admin decides on.

The program never enforces. `recommend` reads the pattern, the severity and whether the source
showed a return path, and takes the narrowest scope that stops what was seen. Only parsed
addresses, ports and our own words enter a recommendation.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any, Final

import words

__all__ = ["recommend"]

_DEFAULT_THRESHOLD: Final = "50 req/sec"
"""The limit while nothing is learned about an endpoint's clients (the specification's value)."""
_DURATION_S: Final = 600

MONITOR, LIMIT, BLOCK, LIMIT_ENDPOINT = (
    "MONITOR_ONLY",
    "RATE_LIMIT_IP",
    "TEMP_BLOCK_IP",
    "RATE_LIMIT_ENDPOINT",
)
SOURCE, PAIR, ENDPOINT = "SOURCE_IP", "SRC_DST_PAIR", "ENDPOINT"

_Column = Mapping[str, tuple[str, str, int]]

# severity -> (action, scope, duration in s); what is missing is MONITOR_ONLY.
_SCAN: Final[_Column] = {
    "MEDIUM": (LIMIT, SOURCE, 600),
    "HIGH": (BLOCK, SOURCE, 600),
    "CRITICAL": (BLOCK, SOURCE, 3600),
}
_ADMIN: Final[_Column] = {
    "MEDIUM": (LIMIT, PAIR, 600),
    "HIGH": (BLOCK, PAIR, 600),
    "CRITICAL": (BLOCK, SOURCE, 3600),
}
_BURST: Final[_Column] = {
    "MEDIUM": (LIMIT, SOURCE, 600),
    "HIGH": (LIMIT, SOURCE, 600),
    "CRITICAL": (BLOCK, SOURCE, 600),
}
_GUESSING: Final[_Column] = {
    "MEDIUM": (LIMIT, ENDPOINT, 600),
    "HIGH": (BLOCK, ENDPOINT, 1800),
    "CRITICAL": (BLOCK, SOURCE, 3600),
}
_SPRAY: Final[_Column] = {
    "MEDIUM": (LIMIT, SOURCE, 600),
    "HIGH": (BLOCK, SOURCE, 1800),
    "CRITICAL": (BLOCK, SOURCE, 3600),
}
_PAIRS: Final[_Column] = {
    "MEDIUM": (LIMIT, PAIR, 600),
    "HIGH": (LIMIT, PAIR, 600),
    "CRITICAL": (LIMIT, PAIR, 600),
}
_UPLOAD: Final[_Column] = {
    "HIGH": (BLOCK, PAIR, 1800),
    "CRITICAL": (BLOCK, PAIR, 3600),
}
_CROWD: Final[_Column] = {
    "MEDIUM": (LIMIT_ENDPOINT, ENDPOINT, 600),
    "HIGH": (LIMIT_ENDPOINT, ENDPOINT, 600),
    "CRITICAL": (LIMIT_ENDPOINT, ENDPOINT, 600),
}
_COLUMNS: Final[Mapping[str, _Column]] = {
    "VERTICAL_SCAN": _SCAN,
    "HORIZONTAL_SWEEP": _SCAN,
    "LATERAL_ADMIN": _ADMIN,
    "HTTP_BURST": _BURST,
    "DDOS_MANY_SOURCES": _CROWD,
    "SLOW_CONNECTIONS": _GUESSING,
    "CREDENTIAL_GUESSING": _GUESSING,
    "PASSWORD_SPRAY": _SPRAY,
    "REPEATED_PAIR": _PAIRS,
    "EXFILTRATION": _UPLOAD,
    "BEACON": _UPLOAD,
}

_WATCH_REASONS: Final = {
    "UDP_SCAN": "A source address of UDP without answers can be forged",
    "STEALTH_SCAN": "Packets outside a connection can carry a forged source address",
    "ICMP_SWEEP": "Pings can carry a forged source address",
    "ARP_SWEEP": "No packet filter between networks sees requests on the local link",
    "SYN_FLOOD": "The sources can be forged; SYN cookies on the target help more than a block",
    "UDP_FLOOD": "The sources can be forged; a block would hit whoever owns the addresses",
    "ICMP_FLOOD": "The sources can be forged; a block would hit whoever owns the addresses",
    "AMPLIFICATION": "The senders are themselves misused by somebody else",
    "DNS_TUNNEL": "The other side is a name server that others need",
    "DNS_RANDOM": "The other side is a name server that others need",
    "ICMP_TUNNEL": "Look at both hosts first; a block would only end the trace",
    "ARP_CONFLICT": "Addresses on the local link are for a switch to guard",
    "SUMMARY": "Several incidents are folded together here",
}


def recommend(
    incident: Mapping[str, Any],
    *,
    whitelisted: bool,
    is_local: Callable[[str], bool],
) -> dict[str, Any]:
    """The `rule_recommendation` of an incident: action, scope, conditions, reason, sentence.

    whitelisted: the incident's source (its foreign party, for uploads) is trusted by the admin.
    is_local: whether an address is inside; a private source is blocked at CRITICAL only.
    """
    action, scope_type, duration_s, reason = _decide(incident, whitelisted, is_local)
    recommendation: dict[str, Any] = {
        "rule_id": incident["rule_id"],
        "action": action,
        "scope": _scope(incident, scope_type, action),
        "conditions": {
            "threshold": _DEFAULT_THRESHOLD if action in (LIMIT, LIMIT_ENDPOINT) else None,
            "duration_seconds": duration_s,
        },
        "requires_admin_approval": True,
        "reason": reason,
    }
    recommendation["sentence"] = words.rule(recommendation)
    return recommendation


def _decide(
    incident: Mapping[str, Any],
    whitelisted: bool,
    is_local: Callable[[str], bool],
) -> tuple[str, str, int, str]:
    """(action, scope type, duration in s, reason); the first gate that holds wins."""
    subpattern, severity = incident["subpattern"], incident["severity"]
    by_target = incident["key_is"] == "target"
    watched = ENDPOINT if by_target and _endpoint(incident) else PAIR if by_target else SOURCE

    def watch(reason: str) -> tuple[str, str, int, str]:
        return MONITOR, watched, _DURATION_S, f"{reason}."

    source = _parsed(incident["src_ip"])
    if source is None or _never_blocked(source):
        return watch("The source is no address that a rule could name")
    if whitelisted:
        return watch("The address is on your whitelist")
    if subpattern.startswith("NEW_"):
        return watch("Something new is for you to judge, not for a rule")
    if subpattern in _WATCH_REASONS:
        return watch(_WATCH_REASONS[subpattern])
    if incident["spoofable"]:
        return watch("No return path was seen, so the source address can be forged")
    column: _Column = _COLUMNS.get(subpattern, {})
    if subpattern == "ANOMALY" and incident["count"] >= 3:
        column = {"CRITICAL": (LIMIT, PAIR, 600)}
    if severity not in column:
        return watch("The evidence is too weak for a rule")
    action, scope_type, duration_s = column[severity]
    if scope_type == ENDPOINT and not _endpoint(incident):
        scope_type = PAIR
        if action == LIMIT_ENDPOINT:
            return watch("No single service was named that could be limited")
    if scope_type == PAIR and _parsed(incident["dst_ip"]) is None:
        return watch("The target is no address that a rule could name")
    inside = is_local(str(source))
    if action == BLOCK and scope_type == SOURCE and inside and severity != "CRITICAL":
        return watch("The source is one of your own hosts; look at it before you cut it off")
    return action, scope_type, duration_s, _reason(incident, scope_type)


def _reason(incident: Mapping[str, Any], scope_type: str) -> str:
    narrow = {
        SOURCE: "the source as a whole is the narrowest scope that stops it",
        PAIR: "the pair of addresses is the narrowest scope that stops it",
        ENDPOINT: "the one service is the narrowest scope that stops it",
    }
    return f"{incident['title']}: {narrow[scope_type]}."


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _parsed(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A zone index ("%eth0") means something on this machine only.
    return None if getattr(address, "scope_id", None) else address


def _never_blocked(address: _Address) -> bool:
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or str(address) == "255.255.255.255"
    )


def _endpoint(incident: Mapping[str, Any]) -> str | None:
    """`192.0.2.1:22/tcp` where exactly one port of one transport was touched, else None."""
    target = _parsed(incident["dst_ip"])
    protocol = str(incident["protocol"]).lower()
    if target is None or len(incident["ports"]) != 1 or protocol not in ("tcp", "udp"):
        return None
    host = f"[{target}]" if target.version == 6 else str(target)
    return f"{host}:{int(incident['ports'][0])}/{protocol}"


def _scope(incident: Mapping[str, Any], wanted: str, action: str) -> dict[str, str]:
    """The scope made of parsed values alone; a wider kind where a part is no address."""
    source, target = _parsed(incident["src_ip"]), _parsed(incident["dst_ip"])
    if wanted == ENDPOINT and (endpoint := _endpoint(incident)):
        many = action in (LIMIT_ENDPOINT, MONITOR) or source is None
        return {"type": ENDPOINT, "value": f"{'*' if many else source}->{endpoint}"}
    if wanted == PAIR and source is not None and target is not None:
        return {"type": PAIR, "value": f"{source}->{target}"}
    return {"type": SOURCE, "value": str(source or target or "0.0.0.0")}
