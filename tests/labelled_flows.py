"""Tables of labelled flows, made packet by packet, in the layout that the evaluation reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def flow(rng: np.random.Generator, *, scale: float = 1.0, odd: bool = False) -> dict[str, float]:
    """One flow: a question of a few packets and a longer answer; odd: many small equal packets."""
    size = scale * np.exp(rng.normal(5, 0.7))
    n = (int(rng.integers(2, 7)), int(rng.integers(1, 9)))
    lengths = [
        np.maximum(np.rint(rng.normal(size * factor, size / 4, count)), 0)
        for factor, count in zip((1.0, 3.0), n, strict=True)
    ]
    gaps = [np.rint(rng.exponential(2e4, count - 1)) for count in n]
    if odd:
        n = (60, 1)
        lengths = [np.full(60, 3.0), np.array([0.0])]
        gaps = [np.full(59, 50.0), np.empty(0)]
    duration = max(gaps[0].sum(), gaps[1].sum()) + 10
    both = np.concatenate(lengths)
    out = {
        "flow_duration": duration,
        "flow_bytes_s": both.sum() / duration * 1e6,
        "flow_pkts_s": sum(n) / duration * 1e6,
        "pkt_len_min": both.min(),
        "pkt_len_max": both.max(),
        "pkt_len_mean": both.mean(),
        "pkt_len_std": both.std(ddof=1),
        "fin_cnt": 2.0,
        "syn_cnt": 2.0,
        "rst_cnt": 0.0,
        "psh_cnt": float(rng.integers(1, 4)),
    }
    for way, count, length, gap in zip(("fwd", "bwd"), n, lengths, gaps, strict=True):
        out[f"tot_{way}_pkts"] = count
        out[f"totlen_{way}"] = length.sum()
        out[f"{way}_len_max"], out[f"{way}_len_min"] = length.max(), length.min()
        out[f"{way}_len_mean"] = length.mean()
        out[f"{way}_len_std"] = length.std(ddof=1) if count > 1 else 0.0
        out[f"{way}_iat_tot"] = gap.sum()
        out[f"{way}_iat_mean"] = gap.mean() if len(gap) else 0.0
        out[f"{way}_iat_std"] = gap.std(ddof=1) if len(gap) > 1 else 0.0
        out[f"init_win_{way}"] = float(rng.choice([8192, 29200, 65535]))
    return out


def flows(
    rng: np.random.Generator,
    n: int,
    *,
    day: str = "",
    net: str = "here",
    edition: str = "improved",
    label: str = "",
    device: str = "",
    scale: float = 1.0,
    start: str = "2026-03-02 08:00",
    source: str = "10.0.0.9",
) -> Any:
    """n flows, an attack's where they have a label, ten seconds apart."""
    frame = pd.DataFrame([flow(rng, scale=scale, odd=bool(label)) for _ in range(n)])
    return frame.assign(
        day=day,
        net=net,
        edition=edition,
        label=label or "BENIGN",
        attack=bool(label),
        device=device,
        src_ip=[source if label else f"10.0.0.{20 + i % 5}" for i in range(n)],
        dst_ip="10.0.0.1",
        src_port=rng.integers(1024, 65535, n),
        dst_port=80,
        protocol=6,
        ts=pd.Timestamp(start) + pd.to_timedelta(np.arange(n) * 10, "s"),
    )


def days(rng: np.random.Generator, n: int, **others: Any) -> list[Any]:
    """Three days of n harmless flows; the last two with an attack each."""
    names = ("Monday", "Tuesday", "Wednesday")
    starts = ("2026-03-02 08:00", "2026-03-03 08:00", "2026-03-04 08:00")
    parts = [
        flows(rng, n, day=day, start=start, **others)
        for day, start in zip(names, starts, strict=True)
    ]
    for day, start, label in zip(names[1:], starts[1:], ("FTP-Patator", "Flood"), strict=True):
        parts.append(flows(rng, 120, day=day, start=start, label=label, **others))
    return parts


def written(folder: Path, *parts: Any) -> Path:
    """The folder, with one table of all parts in it."""
    (folder / "flows").mkdir(exist_ok=True)
    table = pd.concat(parts, ignore_index=True)
    table.to_parquet(folder / "flows" / "flows.parquet")
    return folder
