"""Files are read up to their damage and it is told; what is no capture is refused politely."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import capture
from capture.buffer import LATEST_NS
from errors import InputError
from tests.captures import (
    START_NS,
    block,
    content,
    interface,
    packet,
    pcap,
    pcapng,
    section,
    some_frames,
    word,
    write,
)

ROOT = Path(__file__).resolve().parent.parent


def test_forged_times_stay_within_what_can_be_counted_with(tmp_path: Path) -> None:
    year_2100_ns = 4_102_444_800 * 10**9  # beyond a signed second counter of 32 bits
    times = [0, year_2100_ns, (1 << 63) - 1, (1 << 64) - 1]
    made = [(time_ns, bytes(60), 60) for time_ns in times]
    for name, data, told in (
        ("x.pcap", pcap(made[:2]), times[:2]),
        ("x.pcapng", pcapng(made), [0, year_2100_ns, LATEST_NS, LATEST_NS]),
    ):
        batches = list(capture.read_capture(write(tmp_path / name, data)))
        assert [frame[0] for frame in content(batches)] == told


def test_long_files_come_in_several_batches_and_tell_how_far_they_are(tmp_path: Path) -> None:
    frames = some_frames(20_000)
    for name, data in (("x.pcap", pcap(frames)), ("y.pcap.gz", pcap(frames))):
        file = capture.read_capture(write(tmp_path / name, data))
        batches, fractions = [], []
        for batch in file:
            batches.append(batch)
            fractions.append(file.fraction or 0.0)
        assert [len(batch) for batch in batches] == [8192, 8192, 3616]
        assert content(batches) == frames
        assert file.frames == 20_000
        assert file.damage is None
        assert 0.3 < fractions[0] < 0.75 < fractions[1] <= fractions[2] == 1.0


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 2**31)), max_size=20),
    st.integers(1, 200),
)
def test_the_snap_length_cuts_frames_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[tuple[bytes, int]], snaplen: int
) -> None:
    frames = [(START_NS + i, body, len(body) + extra) for i, (body, extra) in enumerate(bodies)]
    path = write(tmp_path_factory.mktemp("cut") / "x.pcap", pcap(frames))
    got = content(list(capture.read_capture(path, snaplen=snaplen)))
    assert got == [(t, body[:snaplen], min(length, 2**31 - 1)) for t, body, length in frames]


def test_whole_frames_where_asked_for(tmp_path: Path) -> None:
    frames = [(START_NS + i, bytes([i]) * 65000, 65000) for i in range(200)]
    path = write(tmp_path / "x.pcap", pcap(frames))
    assert content(list(capture.read_capture(path, snaplen=65535))) == frames


def patched(data: bytes, place: int, value: bytes) -> bytes:
    return data[:place] + value + data[place + len(value) :]


LONG_BLOCK = word(6, 4, "<") + word(17 << 20, 4, "<")
NOT_THERE = packet(0, START_NS, b"abc", 3)
FRAME_TOO_LONG = patched(packet(0, START_NS, b"abcd", 4), 20, word(100, 4, "<"))

# What is damaged, the damaging, frames that are read, words of the sentence.
DAMAGES: list[tuple[str, Callable[[bytes], bytes], int, str]] = [
    ("cut.pcap", lambda d: d[:-3], 99, "in its frame 100 .*cut off after .* bytes.*the 99 before"),
    ("cut in a record's header.pcap", lambda d: d[:34], 0, "frame 1 .*10 of 16.*nothing is read"),
    ("garbage behind.pcap", lambda d: d + b"garbage", 100, "frame 101 .*after 7 of 16 bytes"),
    ("more garbage.pcap", lambda d: d + b"\xde" * 50, 100, r"be 3,739,147,998 bytes long"),
    ("zeros behind.pcap", lambda d: d + bytes(4096), 100, "zeros stand where"),
    ("bad caplen.pcap", lambda d: patched(d, 32, b"\xff\xff\xff\x7f"), 0, "2,147,483,647 bytes"),
    ("caplen too long.pcap", lambda d: patched(d, 32, word(262_145, 4, "<")), 0, "262,145 bytes"),
    (
        "bad header behind.pcap",
        lambda d: d + pcap([], version=(7, 1)),
        100,
        r"version 7\.1 of pcap",
    ),
    ("half a header behind.pcap", lambda d: d + pcap([])[:20], 100, "20 of 24 bytes"),
    ("cut.pcapng", lambda d: d[:-3], 99, "in its frame 100 .*cut off"),
    ("cut in a block's header.pcapng", lambda d: d + b"\6\0\0\0\1", 100, "5 of 12 bytes"),
    ("size below.pcapng", lambda d: d + word(6, 4, "<") + word(8, 8, "<"), 100, "length of 8 by"),
    ("odd size.pcapng", lambda d: d + word(6, 4, "<") + word(33, 8, "<"), 100, "length of 33 by"),
    ("vast.pcapng", lambda d: d + LONG_BLOCK + bytes(9), 100, "17,825,792 bytes long"),
    ("two lengths.pcapng", lambda d: d[:-4] + word(5, 4, "<"), 99, "two lengths .* differ"),
    ("frame too long.pcapng", lambda d: d + FRAME_TOO_LONG, 100, "longer than the block"),
    ("small packet.pcapng", lambda d: d + block(6, bytes(8), "<"), 100, "length of 20 bytes"),
    ("small interface.pcapng", lambda d: d + block(1, bytes(4), "<"), 100, "description is too"),
    ("no interface.pcapng", lambda d: d + section() + NOT_THERE, 100, "not described"),
    ("section.pcapng", lambda d: d + patched(section(), 8, b"abcd"), 100, "its byte order"),
    ("half a section.pcapng", lambda d: d + section()[:20], 100, "20 of 28 bytes"),
    ("version.pcapng", lambda d: d + patched(section(), 12, b"\2"), 100, r"version 2\.0 of pcapng"),
]


@pytest.mark.parametrize(("name", "damaged", "count", "words"), DAMAGES, ids=lambda x: str(x)[:24])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_files_are_read_up_to_the_damage(
    tmp_path: Path,
    name: str,
    damaged: Callable[[bytes], bytes],
    count: int,
    words: str,
    suffix: str,
) -> None:
    frames = some_frames(100)
    make = pcapng if name.endswith("pcapng") else pcap
    file = capture.read_capture(write(tmp_path / (name + suffix), damaged(make(frames))))
    assert content(list(file)) == frames[:count]
    assert re.search(words, file.damage or "")
    assert (file.damage or "").startswith(name)
    assert (file.damage or "").count(". ") == 0


def test_interfaces_without_end_fill_no_memory(tmp_path: Path) -> None:
    data = section() + interface(1) * 65_537 + packet(0, START_NS, b"x", 1)
    file = capture.read_capture(write(tmp_path / "x.pcapng", data))
    assert content(list(file)) == []
    assert "more than 65,536 interfaces" in (file.damage or "")


def test_a_gzip_stream_that_breaks_off_is_read_up_to_there(tmp_path: Path) -> None:
    frames = some_frames(3000)
    whole = pcap(frames)
    packed = gzip.compress(whole, 1)
    half = len(packed) // 2
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    begun = packer.compress(whole[: len(whole) // 2]) + packer.flush(zlib.Z_FULL_FLUSH)
    for data, words in (
        (packed[:half], "gzip stream is cut off"),
        (begun + b"\xff" * 2000, "gzip stream is broken .*invalid block type"),
        (packed[:-8] + b"12345678", "gzip stream is broken .*check"),
        (packed + b"no gzip", "behind its gzip stream"),
        (packed[:-3], "gzip stream is cut off"),
    ):
        path = tmp_path / "x.pcap.gz"
        path.write_bytes(data)
        file = capture.read_capture(path)
        got = content(list(file))
        # What zlib gives before it complains, in whole frames.
        unpacker, there = zlib.decompressobj(31), b""
        try:
            for place in range(len(data)):
                there += unpacker.decompress(data[place : place + 1])
        except zlib.error:
            pass
        count = 0
        end = 24
        while count < 3000 and (end := end + 16 + len(frames[count][1])) <= len(there):
            count += 1
        assert len(got) == count >= 500
        assert got == frames[:count]
        assert re.search(words, file.damage or "")


def test_gzip_in_pieces_and_with_zeros_behind_is_whole(tmp_path: Path) -> None:
    frames = some_frames(3000)
    data = pcap(frames)
    path = tmp_path / "x.pcap.gz"
    pieces = [gzip.compress(data[i : i + 777], 1) for i in range(0, len(data), 777)]
    path.write_bytes(b"".join(pieces) + bytes(10_000))
    file = capture.read_capture(path)
    assert content(list(file)) == frames
    assert file.damage is None


WITH_EDITCAP = "editcap -F pcapng"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("empty.pcap", b"", "is empty"),
        ("empty.pcap.gz", b"", "holds no bytes"),
        ("text.pcap", b"time,source,target\n1,2,3\n" * 20, "it is a text file"),
        ("text.pcap.gz", b"time,source,target\n1,2,3\n" * 20, "it is a text file"),
        ("noise.pcap", bytes(range(256)), "unknown file format"),
        ("short.pcap", b"\xd4\xc3\xb2\xa1", "its header is cut off after 4 of 24 bytes"),
        ("shorter.pcap", b"\xd4\xc3", "unknown file format"),
        ("old.pcap", pcap([], version=(1, 9)), r"version 1\.9 of pcap"),
        ("next.pcapng", patched(section(), 12, b"\2"), r"version 2\.0 of pcapng"),
        ("other magic.pcap", b"\xcd\x34\xb2\xa1" + bytes(40), "unknown file format"),
        ("half.pcapng", section()[:20], "20 of 28 bytes"),
        ("order.pcapng", patched(section(), 8, bytes(4)), "its byte order"),
        ("size.pcapng", patched(section(), 4, b"\x1d"), "claims to be 29 bytes"),
        ("trailer.pcapng", section()[:-4] + bytes(4), "two lengths of a section's header"),
        ("snoop.pcap", b"snoop\0\0\0\0\0\0\2" + bytes(40), f"Solaris.*{WITH_EDITCAP}"),
        ("netmon.cap", b"GMBU\0\2" + bytes(40), f"Network Monitor.*{WITH_EDITCAP}"),
        ("trace.pcap.gz", b"iptrace 2.0" + bytes(40), f"AIX.*{WITH_EDITCAP}"),
        ("sniffer.cap", b"TRSNIFF data    \x1a" + bytes(40), f"Sniffer.*{WITH_EDITCAP}"),
        ("zip.pcap", b"PK\x03\x04" + bytes(40), "zip archive.*unpack it first"),
        ("xz.pcap", b"\xfd7zXZ\0" + bytes(40), "packed with xz.*unpack it first"),
        ("twice.pcap.gz", gzip.compress(pcap([])), "gzip twice.*unpack it first"),
        ("broken.pcap.gz", None, "gzip stream is broken"),
    ],
)
def test_what_is_no_capture_is_refused_in_one_sentence(
    tmp_path: Path, name: str, data: bytes | None, words: str
) -> None:
    path = tmp_path / name
    if data is None:
        path.write_bytes(b"\x1f\x8b" + b"no gzip at all" * 10)
    else:
        write(path, data)
    with pytest.raises(InputError, match=words) as refusal:
        capture.read_capture(path)
    assert str(refusal.value).count("\n") == 0
    assert name in str(refusal.value)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        capture.read_capture(tmp_path / "none.pcap")
    with pytest.raises(InputError, match="directory"):
        capture.read_capture(tmp_path)


@pytest.mark.parametrize("data", [pcap([]), pcapng([]), section(">"), pcapng([], link_types=())])
def test_a_capture_without_frames_is_no_error(tmp_path: Path, data: bytes) -> None:
    file = capture.read_capture(write(tmp_path / "x.pcap", data))
    assert list(file) == []
    assert (file.frames, file.damage) == (0, None)


def test_a_packed_giant_needs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "giant.pcap.gz"
    record = pcap([(START_NS, bytes(60_000), 60_000)])
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(record[:24])
        for _ in range(20):
            file.write(record[24:] * 40)
    script = (
        "import resource, sys, capture; capture.warm()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(sum(len(batch) for batch in capture.read_capture(sys.argv[1])))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    count, grown_kib = map(int, answer.stdout.split())
    assert path.stat().st_size < 1 << 20
    assert count == 800
    # 48 MB unpacked; what remains is a batch or two and the window.
    assert grown_kib < 16 << 10


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_reading_can_be_given_up(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pcap.gz", pcap(some_frames(30_000)))
    before = os.listdir("/proc/self/fd")
    file = capture.read_capture(path)
    next(iter(file))
    file.close()
    assert os.listdir("/proc/self/fd") == before


# The captures/odd of the shared data, as libpcap (where it reads them whole) and a dissection by
# hand (where it does not) have them: frames, link types, words of the damage.
ODD: dict[str, tuple[int, set[int], str]] = {
    "big_endian_nsec.pcap.gz": (10, {1}, ""),
    "big_endian_usec.pcap.gz": (128, {1}, ""),
    "chdlc.pcap.gz": (38, {104}, ""),
    "damaged_bad_caplen.pcap.gz": (6, {1}, "4,325,376 bytes long"),
    "damaged_header_only.pcap.gz": (0, set(), ""),
    "damaged_pcapng_bad_block.pcapng.gz": (47, {1}, "length of 0 bytes"),
    "damaged_truncated_last_record.pcap.gz": (0, set(), "164 of 445 bytes"),
    "esp_ipsec.pcap.gz": (240, {1}, ""),
    "geneve.pcap.gz": (39, {1}, ""),
    "gre_erspan.pcap.gz": (108, {1}, ""),
    "gre_various.pcap.gz": (100, {1}, ""),
    "gtp_u.pcap.gz": (102, {1}, ""),
    "ip_options_igmp.pcap.gz": (81, {1}, ""),
    "ipv4_fragments_dns.pcap.gz": (66, {1}, ""),
    "ipv6_ext_headers_http.pcap.gz": (55, {1}, ""),
    "ipv6_fragments.pcap.gz": (36, {1}, ""),
    "ipv6_in_ipv4.pcap.gz": (10, {1}, ""),
    "jumbo_tso_frames.pcap.gz": (70, {1}, ""),
    "linux_sll2_http.pcap.gz": (24, {276}, ""),
    "linux_sll_5gc.pcapng.gz": (250, {113}, ""),
    "nflog.pcap.gz": (10, {239}, ""),
    "nsec_invalid_timestamp.pcap.gz": (3, {113}, ""),
    "nsec_little_endian.pcap.gz": (3, {113}, ""),
    "null_loopback_be_macos.pcapng.gz": (64, {0, 1}, ""),
    "pcapng_2_interfaces.pcapng.gz": (159, {1, 113}, ""),
    "pcapng_3_sections.pcapng.gz": (8, {0, 1}, ""),
    "pcapng_95_interfaces.pcapng.gz": (1, {1}, ""),
    "ppp_dlt9_quic.pcap.gz": (26, {9}, ""),
    "pppoe_over_qinq.pcap.gz": (86, {1}, ""),
    "pppoe_session.pcap.gz": (65, {1}, ""),
    "profinet_l2.pcap.gz": (14, {1}, ""),
    "raw_ip_dlt101.pcap.gz": (100, {12}, ""),
    "raw_ipv4_dlt228_mqtt.pcap.gz": (63, {228}, ""),
    "raw_ipv6_dlt229_mobility.pcap.gz": (16, {229}, ""),
    "sctp_www.pcap.gz": (84, {1}, ""),
    "snaplen_truncated.pcapng.gz": (257, {1}, ""),
    "teredo.pcap.gz": (78, {1}, ""),
    "vlan_collisions.pcap.gz": (42, {1}, ""),
    "vlan_mpls_mixed.pcap.gz": (47, {1}, ""),
    "vntag.pcap.gz": (3, {1}, ""),
    "vxlan_aws_31s.pcap.gz": (100, {1}, ""),
    "wifi_radiotap_http.pcap.gz": (26, {127}, ""),
}


def test_odd_captures(shared_data: Path) -> None:
    folder = shared_data / "captures" / "odd"
    there = {path.name for path in folder.iterdir()}
    assert there == {*ODD, "solaris_snoop.snoop.gz"}
    with pytest.raises(InputError, match="a snoop file of Solaris"):
        capture.read_capture(folder / "solaris_snoop.snoop.gz")
    for name, (frames, link_types, damage) in ODD.items():
        file = capture.read_capture(folder / name)
        batches = list(file)
        told = {int(number) for batch in batches for number in batch.link_type}
        assert (len(content(batches)), told) == (frames, link_types), name
        if damage:
            assert re.search(damage, file.damage or ""), name
        else:
            assert file.damage is None, name
