"""Sentences about incidents, flows and rules, and the numbers in them; the one place for words.

Pages, JSON and CSV say the same because all of them take their sentences from here. Numbers carry
three significant digits and a unit, bytes are SI, counts have commas. `**` marks what a page sets
in bold. Names come from traffic and are an attacker's text: `plain` keeps them short, on one line
and free of our markers; escaping is the page's.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping
from typing import Any, Final

from batches import ARP, ICMP, ICMPV6, TCP, UDP
from units import amount, clock, count, duration, local_timestamp, number, rarity, size

__all__ = [
    "amount",
    "bare",
    "clock",
    "count",
    "deviation",
    "deviation_name",
    "duration",
    "local_timestamp",
    "number",
    "plain",
    "protocol_name",
    "rarity",
    "rule",
    "service",
    "short",
    "size",
    "title",
    "top_deviations",
    "tunnels",
    "unread",
    "why",
]

NAME_LENGTH: Final = 40
"""Longest name shown inside a sentence, characters."""

_SERVICES: Final = {
    20: "FTP data", 21: "FTP", 22: "SSH", 23: "Telnet", 25: "SMTP", 53: "DNS", 67: "DHCP",
    68: "DHCP", 69: "TFTP", 80: "HTTP", 88: "Kerberos", 102: "S7", 110: "POP3", 111: "RPC",
    123: "NTP", 135: "MS RPC", 137: "NetBIOS", 138: "NetBIOS", 139: "NetBIOS", 143: "IMAP",
    161: "SNMP", 162: "SNMP trap", 179: "BGP", 389: "LDAP", 443: "HTTPS", 445: "SMB",
    465: "SMTPS", 500: "IKE", 502: "Modbus", 514: "syslog", 515: "LPD", 546: "DHCPv6",
    547: "DHCPv6", 554: "RTSP", 587: "SMTP", 631: "IPP", 636: "LDAPS", 853: "DNS over TLS",
    873: "rsync", 993: "IMAPS", 995: "POP3S", 1080: "SOCKS", 1194: "OpenVPN", 1433: "MS SQL",
    1521: "Oracle", 1883: "MQTT", 1900: "SSDP", 2049: "NFS", 3128: "proxy", 3306: "MySQL",
    3389: "RDP", 3478: "STUN", 4500: "IPsec", 5000: "UPnP", 5060: "SIP", 5353: "mDNS",
    5355: "LLMNR", 5432: "PostgreSQL", 5671: "AMQP", 5672: "AMQP", 5683: "CoAP", 5900: "VNC",
    5985: "WinRM", 5986: "WinRM", 6379: "Redis", 8080: "HTTP", 8443: "HTTPS", 8883: "MQTT",
    9100: "printer", 9200: "Elasticsearch", 11211: "memcached", 20000: "DNP3",
    27017: "MongoDB", 44818: "EtherNet/IP", 47808: "BACnet", 51820: "WireGuard",
}  # fmt: skip
"""Names people know for well-known ports (IANA registry; 8080 and 8443 by custom)."""

_PROTOCOLS: Final = {
    ARP: "ARP",
    ICMP: "ICMP",
    2: "IGMP",
    4: "IP in IP",
    TCP: "TCP",
    UDP: "UDP",
    33: "DCCP",
    41: "IPv6 in IPv4",
    47: "GRE",
    50: "ESP",
    51: "AH",
    ICMPV6: "ICMPv6",
    88: "EIGRP",
    89: "OSPF",
    103: "PIM",
    112: "VRRP",
    115: "L2TP",
    132: "SCTP",
    136: "UDP-Lite",
}

_UNREAD: Final = {
    "link_type": "of a link type that is not read here",
    "truncated": "cut off within their headers",
    "not_ip": "neither IP nor ARP",
    "bad_header": "with a header that contradicts itself",
    "fragment": "with a later fragment",
    "encrypted": "encrypted",
    "duplicate": "seen twice",
}

_TUNNELS: Final = {
    "gre": "GRE",
    "ip_in_ip": "IP in IP",
    "vxlan": "VXLAN",
    "geneve": "Geneve",
    "gtp": "GTP",
    "teredo": "Teredo",
}


# --- names --------------------------------------------------------------------------------------


def plain(name: str) -> str:
    """A name from traffic made fit for a sentence: one word, printable, at most 40 characters.

    Stops at its ends go (a name server's full names have one), so that it ends no sentence.
    """
    # Direction overrides and other format characters are not printable, so they go too.
    kept = "".join(c for c in "-".join(name.split()) if c.isprintable() and c != "*")
    joined = kept.strip(".,:;-")
    return joined if len(joined) <= NAME_LENGTH else joined[: NAME_LENGTH - 1] + "…"


def protocol_name(number: int) -> str:
    """The IANA protocol number in words; 0 stands for ARP."""
    return _PROTOCOLS.get(number, f"IP {number}")


def service(port: int | None, protocol: int | str) -> str:
    """What people call traffic to `port`: "SSH", "TCP port 8123", "ICMP"."""
    name = protocol if isinstance(protocol, str) else protocol_name(protocol)
    if name not in ("TCP", "UDP") or not port:
        return name
    return _SERVICES.get(port, f"{name} port {port}")


def _who(incident: Mapping[str, Any], side: str) -> str:
    address = str(incident.get("src_ip" if side == "src" else "dst_ip") or "an unknown address")
    names = incident.get("names") or {}
    return plain(str(names.get(side) or "")) or plain(address)


def unread(frames: Mapping[str, int]) -> str:
    """Why frames gave no packet: "12 neither IP nor ARP, 3 with a later fragment".

    frames: how many, by the names of UNREAD_REASONS.
    """
    return ", ".join(f"{n:,} {_UNREAD[reason]}" for reason, n in frames.items() if n)


def tunnels(headers: Mapping[str, int]) -> str:
    """What packets were taken out of: "12 GRE, 3 VXLAN".

    headers: how many, by the names of packets.TUNNELS.
    """
    return ", ".join(f"{n:,} {_TUNNELS[kind]}" for kind, n in headers.items() if n)


# --- titles and why -----------------------------------------------------------------------------

_TITLES: Final = {
    "ICMP_SWEEP": "Ping sweep from {src}",
    "ARP_SWEEP": "Address sweep from {src}",
    "LATERAL_ADMIN": "Admin connections from {src} to many hosts",
    "SYN_FLOOD": "Burst of connection attempts to {dst}",
    "UDP_FLOOD": "Burst of UDP to {dst}",
    "ICMP_FLOOD": "Burst of ICMP to {dst}",
    "AMPLIFICATION": "Burst of unasked replies to {dst}",
    "DDOS_MANY_SOURCES": "Burst of {service} from many sources to {dst}",
    "PASSWORD_SPRAY": "Repeated {service} connections from {src} to many hosts",
    "NEW_DEVICE": "New device talking: {ip}",
    "NEW_SERVICE": "New service on {src}",
    "NEW_PROTOCOL": "New protocol from {src}",
    "ARP_CONFLICT": "Two devices claim {ip}",
    "SUMMARY": "Many small incidents, folded into one",
    "EXFILTRATION": "Large upload from {src}",
    "SRC_SCAN": "Port scan from {src}",
    "REPEATED_PAIR": "Repeated {service} connections to {dst}",
    "BURST": "Burst of {service} from {src}",
    "DISTRIBUTED": "Burst of {service} from many sources to {dst}",
    "SLOW_CONNECTIONS": "Many slow connections to {dst}",
    "BEACON": "Clockwork traffic from {src}",
    "TUNNEL": "Unusual {service} traffic from {src}",
}
_OTHER_TITLE: Final = "Unusual {service} traffic from {src}"


def title(incident: Mapping[str, Any]) -> str:
    """The incident's name: by subpattern, else by pattern; claims only what was seen."""
    template = _TITLES.get(incident["subpattern"]) or _TITLES.get(incident["pattern"])
    return (template or _OTHER_TITLE).format(
        src=_who(incident, "src"),
        dst=_who(incident, "dst"),
        ip=plain(str(incident["src_ip"])),
        service=_incident_service(incident),
    )


# What happened, without who: the first line whose fields are all known is used. A line in
# which `{whom}` stands names the other side itself.
_HAPPENED: Final[Mapping[str, tuple[str, ...]]] = {
    "VERTICAL_SCAN": ("tried {ports} on {whom}", "tried many ports on {whom}"),
    "HORIZONTAL_SWEEP": ("tried {service} on {hosts}", "tried {service} on many hosts"),
    "UDP_SCAN": ("sent to {ports} of {whom} over UDP", "sent to many UDP ports of {whom}"),
    "STEALTH_SCAN": (
        "sent packets of no connection to {ports} on {whom}",
        "sent packets of no connection to {whom}",
    ),
    "ICMP_SWEEP": ("pinged {hosts}", "pinged many hosts"),
    "ARP_SWEEP": ("asked for {hosts} on the local network", "asked for many local addresses"),
    "LATERAL_ADMIN": ("opened admin connections to {hosts}", "opened many admin connections"),
    "SYN_FLOOD": (
        "sent {rate} of connection attempts to {whom}",
        "sent {packets} that ask {whom} for a connection",
        "asked {whom} for many connections",
    ),
    "UDP_FLOOD": ("sent {rate} over UDP to {whom}", "sent {packets} over UDP to {whom}"),
    "ICMP_FLOOD": ("sent {rate} over ICMP to {whom}", "sent {packets} over ICMP to {whom}"),
    "AMPLIFICATION": ("sent {bytes} nobody asked for to {whom}",),
    "HTTP_BURST": ("opened {connections} to {service} on {whom}", "sent {rate} to {whom}"),
    "SLOW_CONNECTIONS": ("kept {silent} to {whom} open",),
    "CREDENTIAL_GUESSING": ("opened {alike} to {service} on {whom}",),
    "PASSWORD_SPRAY": ("opened alike {service} connections to {hosts}",),
    "REPEATED_PAIR": ("opened {flows} to {whom} that look unlike normal traffic",),
    "DNS_TUNNEL": ("asked {whom} for {long}", "sent {bytes} in DNS to {whom}"),
    "DNS_RANDOM": ("asked for {random}", "asked for many random-looking names"),
    "ICMP_TUNNEL": ("sent {bytes} inside pings to {whom}", "sent data inside pings to {whom}"),
    "EXFILTRATION": ("sent {bytes} to {whom}",),
    "BEACON": (
        "called {whom} every {interval}, {contacts}",
        "called {whom} every {interval}, always alike",
        "called {whom} at equal intervals",
    ),
    "NEW_DEVICE": ("talks on this network for the first time",),
    "NEW_SERVICE": ("answers on {service} for the first time",),
    "NEW_PROTOCOL": ("speaks {service} for the first time",),
    "ARP_CONFLICT": ("is claimed by {devices}", "is claimed by more than one device"),
    "SUMMARY": ("{folded} were folded together because the list is full",),
    "ANOMALY": (
        "exchanged {bytes} with {whom} over {service}",
        "sent {packets} to {whom} over {service}",
    ),
    "SRC_SCAN": ("tried {ports} on {whom}", "tried {hosts}"),
    "BURST": ("sent {rate} to {whom}", "sent {packets} to {whom}", "opened {connections}"),
    "DISTRIBUTED": ("sent {rate} to {whom}", "sent {packets} to {whom}"),
    "TUNNEL": ("sent {bytes} to {whom}",),
}
_ANYTHING: Final = "sent {service} traffic to {whom} that is not usual"


def why(incident: Mapping[str, Any]) -> str:
    """At most two sentences and 32 words: who did what to whom, and how unusual that is."""
    happened = _happened(incident, _who(incident, "dst"), strong=True)
    if incident["subpattern"] == "SUMMARY":
        return f"{happened[0].upper()}{happened[1:]}."
    who = f"**{_who(incident, 'src')}**"
    many = _how_many(incident, "sources")
    if incident["key_is"] == "target" and many > 1:
        who = f"**{count(many, 'source')}**"
    return " ".join(p for p in (f"{who} {happened}.", _usual(incident)) if p)


def short(incident: Mapping[str, Any]) -> str:
    """One line under the title, so without who: "Tried **412 ports** on nas in 38 s."."""
    happened = _happened(incident, _who(incident, "dst"), strong=False)
    return " ".join(p for p in (f"{happened[0].upper()}{happened[1:]}.", _usual(incident)) if p)


def _happened(incident: Mapping[str, Any], whom: str, *, strong: bool) -> str:
    fields = _fields(incident)
    fields["whom"] = f"**{whom}**" if strong else whom
    others = _how_many(incident, "targets") - 1
    if others > 0 and incident["key_is"] == "source":
        fields["whom"] += f" and {count(others, 'other')}"
    lines = _HAPPENED.get(incident["subpattern"]) or _HAPPENED.get(incident["pattern"]) or ()
    line = next((text for text in lines if _needs(text) <= fields.keys()), _ANYTHING)
    seconds = _measure(incident, "seconds")
    # A span says nothing where the line has its own rhythm, or where only one flow was seen.
    if seconds and seconds >= 1 and not _needs(line) & {"interval", "rate", "folded", "silent"}:
        line += " in {time}"
        fields["time"] = duration(seconds)
    return line.format(**fields)


def _needs(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


# field: (noun, names of the amounts it is made of)
_COUNTED: Final = {
    "ports": ("port", ("ports", "distinct_ports")),
    "hosts": ("host", ("hosts", "targets", "distinct_hosts")),
    "connections": ("connection", ("connections", "flows", "attempts")),
    "alike": ("alike connection", ("connections", "flows", "attempts")),
    "silent": ("nearly silent connection", ("connections", "flows")),
    "long": ("long name", ("queries", "names")),
    "random": ("random-looking name", ("queries", "names")),
    "packets": ("packet", ("packets",)),
    "flows": ("connection", ("alerts", "flows", "connections")),
    "contacts": ("time", ("contacts", "calls")),
    "devices": ("device", ("devices", "macs")),
    "folded": ("incident", ("folded",)),
}


def _fields(incident: Mapping[str, Any]) -> dict[str, str]:
    """What the sentence may use, each in words; only what the evidence gave."""
    fields = {"service": _incident_service(incident)}
    for field, (noun, names) in _COUNTED.items():
        value = _measure(incident, *names)
        if value is not None:
            fields[field] = f"**{count(round(value), noun)}**"
    volume = _measure(incident, "bytes", "bytes_out")
    if volume is not None:
        fields["bytes"] = f"**{size(volume)}**"
    rate = _measure(incident, "packets_per_s", "per_second")
    if rate is not None:
        fields["rate"] = f"**{number(rate)} packets/s**"
    interval = _measure(incident, "interval_s", "interval_seconds", "interval", "period_s")
    if interval is not None:
        fields["interval"] = f"**{duration(interval)}**"
    return fields


def _how_many(incident: Mapping[str, Any], side: str) -> int:
    """Distinct sources or targets: the list's length (it is bounded), or the evidence's count."""
    return max(len(incident[side]), round(_measure(incident, side) or 0))


def _measure(incident: Mapping[str, Any], *names: str) -> float | None:
    amounts = incident.get("amounts") or {}
    for name in names:
        value = amounts.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return None


def _incident_service(incident: Mapping[str, Any]) -> str:
    ports = incident.get("ports") or []
    protocol = incident.get("protocol", "IP")
    if len(ports) == 1 or incident["pattern"] in ("REPEATED_PAIR", "BURST", "DISTRIBUTED"):
        return service(ports[0] if ports else None, protocol)
    return service(None, protocol)


def _usual(incident: Mapping[str, Any]) -> str:
    """The second sentence: what is usual, else what the answers say, else how rare it is."""
    low, high = _measure(incident, "usual_low"), _measure(incident, "usual_high")
    if low is not None and high is not None:
        return f"Usual: {number(low)} to {number(high)}."
    failed = _measure(incident, "failed", "unanswered", "refused")
    if failed and failed >= (_measure(incident, "ports", "hosts") or math.inf):
        return "None of them answered."
    if failed:
        return f"**{round(failed):,}** had no answer or were refused."
    worst = (incident.get("deviations") or [None])[0]
    if worst and "window" not in incident["kinds"]:
        return f"{deviation(worst)}."
    rare = incident.get("rarity") or {}
    if rare.get("beyond") and "window" not in incident["kinds"]:
        return f"Odder than all {int(rare['reference']):,} normal flows."
    return ""


def deviation(one: Mapping[str, Any]) -> str:
    """One feature against its range: "Bytes sent **1.9 GB**, usually 40 kB to 14 MB"; within it
    against the normal flow nearest to this one: "Bytes sent **90 kB**, 310 B in flows like it"."""
    unit = str(one["unit"])
    value, low, high = (amount(float(one[field]), unit) for field in ("value", "low", "high"))
    ordinary = one.get("ordinary")  # incidents of before it was told lack it
    if ordinary is not None and one["low"] <= one["value"] <= one["high"]:
        like = amount(float(ordinary), unit)
        if like != value:
            return f"{one['label']} **{value}**, {like} in flows like it"
    span = low if low == high else f"{low} to {high}"
    return f"{one['label']} **{value}**, usually {span}"


def deviation_name(one: Mapping[str, Any]) -> str:
    """One feature in the specification's words: "Flow Duration High"."""
    if one["value"] > one["high"]:
        return f"{one['feature']} High"
    if one["value"] < one["low"]:
        return f"{one['feature']} Low"
    return f"{one['feature']} Unusual"


def top_deviations(incident: Mapping[str, Any], flow: Mapping[str, Any] | None) -> list[str]:
    """`explainability.top_deviations`: the pattern's name, then the oddest flow's words."""
    words = [str(w) for w in (flow or {}).get("explainability", {}).get("top_deviations", [])][:5]
    if incident["subpattern"] in ("ANOMALY", "SUMMARY"):
        return words
    return [f"{str(incident['subpattern']).replace('_', ' ').title()} Pattern", *words]


# --- rules ----------------------------------------------------------------------------------------


def rule(recommendation: Mapping[str, Any]) -> str:
    """The recommendation as one sentence: "Block 192.0.2.7 → 198.51.100.23 for 60 min."."""
    value = str(recommendation["scope"]["value"]).replace("*", "any source").replace("->", " → ")
    span = duration(recommendation["conditions"]["duration_seconds"])
    threshold = recommendation["conditions"]["threshold"]
    action = recommendation["action"]
    if action == "TEMP_BLOCK_IP":
        return f"Block {value} for {span}."
    if action == "MONITOR_ONLY":
        return f"Watch {value}; no rule is recommended."
    limit = _threshold(str(threshold))
    return f"Limit {value} to {limit} for {span}."


def _threshold(text: str) -> str:
    amount_text, _, unit = text.partition(" ")
    what, _, per = unit.partition("/")
    nouns = {"req": "requests", "pkt": "packets", "byte": "bytes"}
    return (
        f"{int(amount_text):,} {nouns.get(what, what)} per {'second' if per == 'sec' else 'minute'}"
    )


# --- inside other sentences ---------------------------------------------------------------------


def bare(text: str) -> str:
    """`text` without the marks for bold."""
    return text.replace("**", "")
