"""What the overview page says: one sentence first, then the figures that carry it."""

from __future__ import annotations

from typing import Any, Final

import words
from batches import MODELS, SEVERITIES
from engine import SILENT_S, Engine

__all__ = ["overview"]

_HOUR_S: Final = 3600
_DAY_S: Final = 24 * _HOUR_S
_SHOWN: Final = 5


def overview(engine: Engine) -> dict[str, Any]:
    """The answer of GET /api/overview; its first sentence is the first rule that holds."""
    status = engine.live_status()
    now_s = float(status["time"])
    incidents = engine.analysis.incidents
    opened = incidents.list(status="OPEN", limit=1000)
    recent = [
        alert
        for alert in incidents.list(status="all", limit=2000)
        if alert["first_time"] >= now_s - _DAY_S and alert["status"] != "FALSE_POSITIVE"
    ]
    traffic = engine.analysis.traffic.series("bits_per_s", points=360)
    mbit = _in_mbit(traffic)
    return {
        **_sentence(status, opened, now_s),
        "figures": _figures(engine, status, mbit, recent),
        "traffic": {**mbit, "unit": "Mbit/s", "lane": engine.lane(traffic["start"])},
        "hours": _hours(recent, now_s),
        "incidents": opened[:_SHOWN],
        "open_total": len(opened),
        "devices": engine.analysis.traffic.busiest(_SHOWN),
        "objections": _objections(engine),
        "time": now_s,
    }


def _sentence(status: dict[str, Any], opened: list[dict[str, Any]], now_s: float) -> dict[str, Any]:
    capture, baseline = status["capture"], status["baseline"]
    urgent = [a for a in opened if a["severity"] in ("CRITICAL", "HIGH")]
    if status["sample"] and not urgent:
        return _said(
            "Sample traffic plays",
            f"{capture['sentence']} What you see was recorded in a lab, not here.",
            "sample",
        )
    if capture["state"] in ("trouble", "off"):
        return _said("Nothing is watched at the moment", capture["sentence"], "trouble")
    if capture["state"] == "capturing" and (capture["last_packet_age_s"] or 0.0) > SILENT_S:
        return _said(
            "No traffic arrives",
            f"{capture['sentence']} Is it the right interface, and is there traffic on it?",
            "trouble",
            {"label": "Choose another interface", "href": "/live"},
        )
    if urgent:
        return _urgent_sentence(opened, urgent)
    if baseline["phase"] != "TRAINED":
        return _said("Getting to know your network", baseline["sentence"], "learning")
    last = max((a["last_time"] for a in opened), default=capture["since"] or now_s)
    calm = f"All quiet for {words.duration(max(now_s - last, 0.0))}"
    rest = (
        f"{words.count(len(opened), 'incident')} of lower severity can wait."
        if opened
        else "Nothing needs you."
    )
    return _said(calm, rest, "quiet")


def _urgent_sentence(opened: list[dict[str, Any]], urgent: list[dict[str, Any]]) -> dict[str, Any]:
    critical = sum(a["severity"] == "CRITICAL" for a in urgent)
    need = f"{words.count(len(urgent), 'incident')} {'needs' if len(urgent) == 1 else 'need'} you"
    if critical:
        need += f", {critical} {'is' if critical == 1 else 'are'} critical"
    worst = max(urgent, key=lambda a: (SEVERITIES.index(a["severity"]), a["last_time"]))
    others = len(opened) - len(urgent)
    detail = words.bare(str(worst["why"]))
    if others:
        detail += f" {words.count(others, 'other')} can wait."
    one = "the critical one" if critical == 1 else "the worst one"
    return _said(
        need,
        detail,
        "critical" if critical else "high",
        {"label": f"Investigate {one}", "href": f"/live?tab=alerts&alert={worst['id']}"},
    )


def _said(
    sentence: str, detail: str, level: str, action: dict[str, str] | None = None
) -> dict[str, Any]:
    return {"sentence": sentence, "detail": detail, "level": level, "action": action}


def _in_mbit(series: dict[str, Any]) -> dict[str, Any]:
    return {
        "start": series["start"],
        "step_s": series["step_s"],
        "values": [round(value / 1e6, 4) for value in series["values"]],
        "low": None if series["low"] is None else series["low"] / 1e6,
        "high": None if series["high"] is None else series["high"] / 1e6,
        "now": series["now"] / 1e6,
    }


def _usual(low: float | None, high: float | None, unit: str = "") -> str:
    if low is None or high is None:
        return "usual range after ten minutes"
    return f"usual {words.number(low, 2)} – {words.number(high, 2)}{unit}"


def _figures(
    engine: Engine, status: dict[str, Any], mbit: dict[str, Any], recent: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    flows = status["flows_per_minute"]
    capture, baseline = status["capture"], status["baseline"]
    lost = capture["kernel_drops"] + capture["interface_drops"] + capture["queue_drops"]
    packets = capture["packets"]
    share = 100 * lost / (packets + lost) if packets + lost else 0.0
    evidence = sum(int(a["count"]) for a in recent)
    needed, collected = baseline["needed"], baseline["collected"]
    return [
        _figure(
            "traffic",
            "Traffic now",
            words.number(mbit["now"]),
            "Mbit/s",
            _usual(mbit["low"], mbit["high"]),
            now=mbit["now"],
            low=mbit["low"],
            high=mbit["high"],
        ),
        _figure(
            "flows",
            "Flows",
            words.number(flows["now"]),
            "per min",
            _usual(flows["low"], flows["high"]),
            now=flows["now"],
            low=flows["low"],
            high=flows["high"],
        ),
        _figure(
            "incidents",
            "Incidents, last 24 h",
            f"{len(recent):,}",
            f"from {words.count(evidence, 'finding')}",
            f"{sum(engine.analysis.verdicts.values()):,} flows judged since the start",
        ),
        _figure(
            "lost",
            "Packets lost",
            f"{share:.2f}",
            "%",
            f"of {packets:,} seen",
            now=share,
            low=0.0,
            high=0.01,
        ),
        _figure(
            "live",
            "Live model",
            str(baseline["phase"]).capitalize(),
            "",
            _next_training(baseline),
            progress=min(collected / needed, 1.0) if needed else None,
        ),
    ]


def _next_training(baseline: dict[str, Any]) -> str:
    if baseline["phase"] == "LEARNING":
        return "training now"
    what = "to the first training" if baseline["version"] is None else "to the next training"
    return f"{baseline['collected']} of {baseline['needed']} flows {what}"


def _figure(
    key: str,
    label: str,
    value: str,
    unit: str,
    note: str,
    *,
    now: float | None = None,
    low: float | None = None,
    high: float | None = None,
    progress: float | None = None,
) -> dict[str, Any]:
    top = max((v for v in (now, high) if v is not None), default=0.0) * 1.25 or None
    return {
        "key": key,
        "label": label,
        "value": value,
        "unit": unit,
        "note": note,
        "now": now,
        "low": low,
        "high": high,
        "max": top,
        "progress": progress,
    }


def _hours(recent: list[dict[str, Any]], now_s: float) -> list[dict[str, Any]]:
    """24 hours up to now, each with its incidents by severity."""
    this_hour = int(now_s // _HOUR_S)
    hours: list[dict[str, Any]] = [
        {"start": float((this_hour - back) * _HOUR_S), **dict.fromkeys(SEVERITIES, 0)}
        for back in range(23, -1, -1)
    ]
    for alert in recent:
        place = int(alert["first_time"] // _HOUR_S) - (this_hour - 23)
        if 0 <= place < len(hours):
            hours[place][alert["severity"]] += 1
    return hours


def _objections(engine: Engine) -> list[dict[str, Any]]:
    """How often each model objects to listed flows of no incident, against what it promises."""
    counted = {name: [0, 0] for name in MODELS}
    for row in engine.analysis.flow_log.newest(limit=2000):
        if row["incident"] is not None:
            continue
        for name, vote in row["model_votes"].items():
            if vote != "UNAVAILABLE":
                counted[name][0] += vote == "ANOMALY"
                counted[name][1] += 1
    promised = {
        model["name"]: 10 ** model["threshold"]
        for model in engine.analysis.predictor.status()["models"]
        if model["threshold"] is not None
    }
    return [
        {
            "model": name,
            "share": objected / judged,
            "low": 0.3 * promised[name],
            "high": 1.5 * promised[name],
        }
        for name, (objected, judged) in counted.items()
        if judged and name in promised
    ]
