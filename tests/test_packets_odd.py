"""The unusual captures: of each, the packets, what is not read by reason, and the tunnels.

    python -m tests.test_packets_odd

prints the table. Packets and reasons are those TShark 4.0 gives for the same files (frames with
arp, ip or ipv6 among their protocols, less those with a fragment offset above 0), the tunnels too,
but for three cases: it knows Teredo by its port alone, counts GRE around what is no IP, and IP in
IP as an IP header more.

Frame by frame the innermost addresses, ports, tags, MAC addresses and lengths of TCP are TShark's
as well, but that it knows no Teredo between other ports, gives a packet in GRE, GTP, 6in4 or Teredo
the MAC addresses of the frame around it and one around ERSPAN without IP those of the frame inside,
and in six frames of pppoe_over_qinq believes PPPoE's length, 6 bytes below that of the IP header.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from batches import UNREAD_REASONS
from capture import read_capture
from packets import TUNNELS, Decoder

ODD = Path(__file__).resolve().parents[2] / "shared" / "data" / "captures" / "odd"


class Expected(NamedTuple):
    packets: int
    unread: dict[str, int]
    tunnels: dict[str, int]


EXPECTED = {
    "big_endian_nsec.pcap.gz": Expected(10, {}, {}),
    "big_endian_usec.pcap.gz": Expected(128, {}, {}),
    "chdlc.pcap.gz": Expected(10, {"not_ip": 28}, {}),
    "damaged_bad_caplen.pcap.gz": Expected(6, {}, {}),
    "damaged_header_only.pcap.gz": Expected(0, {}, {}),
    "damaged_pcapng_bad_block.pcapng.gz": Expected(47, {}, {}),
    "damaged_truncated_last_record.pcap.gz": Expected(0, {}, {}),
    "esp_ipsec.pcap.gz": Expected(240, {}, {}),
    "geneve.pcap.gz": Expected(39, {}, {"geneve": 39}),
    "gre_erspan.pcap.gz": Expected(108, {}, {"gre": 10}),
    "gre_various.pcap.gz": Expected(30, {"not_ip": 70}, {"gre": 20}),
    "gtp_u.pcap.gz": Expected(102, {}, {"gtp": 102}),
    "ip_options_igmp.pcap.gz": Expected(81, {}, {}),
    "ipv4_fragments_dns.pcap.gz": Expected(59, {"fragment": 7}, {}),
    "ipv6_ext_headers_http.pcap.gz": Expected(55, {}, {}),
    "ipv6_fragments.pcap.gz": Expected(4, {"fragment": 32}, {}),
    "ipv6_in_ipv4.pcap.gz": Expected(10, {}, {"ip_in_ip": 10}),
    "jumbo_tso_frames.pcap.gz": Expected(70, {}, {}),
    "linux_sll2_http.pcap.gz": Expected(24, {}, {}),
    "linux_sll_5gc.pcapng.gz": Expected(250, {}, {"gtp": 2}),
    "nflog.pcap.gz": Expected(10, {}, {}),
    "nsec_invalid_timestamp.pcap.gz": Expected(3, {}, {}),
    "nsec_little_endian.pcap.gz": Expected(3, {}, {}),
    "null_loopback_be_macos.pcapng.gz": Expected(64, {}, {}),
    "pcapng_2_interfaces.pcapng.gz": Expected(159, {}, {}),
    "pcapng_3_sections.pcapng.gz": Expected(8, {}, {}),
    "pcapng_95_interfaces.pcapng.gz": Expected(1, {}, {}),
    "ppp_dlt9_quic.pcap.gz": Expected(26, {}, {}),
    "pppoe_over_qinq.pcap.gz": Expected(86, {}, {}),
    "pppoe_session.pcap.gz": Expected(25, {"not_ip": 40}, {}),
    "profinet_l2.pcap.gz": Expected(0, {"not_ip": 14}, {}),
    "raw_ip_dlt101.pcap.gz": Expected(100, {}, {}),
    "raw_ipv4_dlt228_mqtt.pcap.gz": Expected(63, {}, {}),
    "raw_ipv6_dlt229_mobility.pcap.gz": Expected(16, {}, {}),
    "sctp_www.pcap.gz": Expected(84, {}, {}),
    "snaplen_truncated.pcapng.gz": Expected(257, {}, {}),
    "teredo.pcap.gz": Expected(78, {}, {"teredo": 29}),
    "vlan_collisions.pcap.gz": Expected(42, {}, {}),
    "vlan_mpls_mixed.pcap.gz": Expected(47, {}, {}),
    "vntag.pcap.gz": Expected(3, {}, {}),
    "vxlan_aws_31s.pcap.gz": Expected(100, {}, {"vxlan": 100}),
    "wifi_radiotap_http.pcap.gz": Expected(26, {}, {}),
}


NO_CAPTURE = {"solaris_snoop.snoop.gz"}
"""Refused with a sentence that helps: tests/test_capture_files.py."""


def decoded(path: Path) -> Decoder:
    decoder = Decoder()
    for batch in read_capture(path):
        decoder.decode(batch)
    return decoder


def counted(decoder: Decoder) -> Expected:
    unread = zip(UNREAD_REASONS, decoder.unread.tolist(), strict=True)
    tunnels = zip(TUNNELS, decoder.tunnels.tolist(), strict=True)
    return Expected(
        decoder.packets,
        {name: n for name, n in unread if n},
        {name: n for name, n in tunnels if n},
    )


@pytest.mark.skipif(not ODD.is_dir(), reason="the unusual captures are not here")
@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_read_of_an_unusual_capture(name: str) -> None:
    decoder = decoded(ODD / name)
    assert counted(decoder) == EXPECTED[name]
    assert decoder.frames == decoder.packets + int(decoder.unread.sum())


@pytest.mark.skipif(not ODD.is_dir(), reason="the unusual captures are not here")
def test_none_of_the_unusual_captures_is_left_out() -> None:
    assert {path.name for path in ODD.iterdir()} == set(EXPECTED) | NO_CAPTURE


def table() -> str:
    lines = ["| capture | frames | packets | not read | tunnels |", "|---|---|---|---|---|"]
    for name in EXPECTED:
        decoder = decoded(ODD / name)
        packets, unread, tunnels = counted(decoder)
        told = [
            ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in counts.items())
            for counts in (unread, tunnels)
        ]
        lines.append(f"| {name} | {decoder.frames} | {packets} | {told[0]} | {told[1]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
