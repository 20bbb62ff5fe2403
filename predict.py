"""Flows in, verdicts out: scores, votes, severity and the reasons, by three models.

score = log10(p), p the share of known-normal flows at least this odd; lower is odder. A model
votes ANOMALY below its line log10(max(w * alpha, 2 / (n + 1))), n the flows the line was counted
on and w its part of the budget: the model of this network decides, those from elsewhere may add
(measured: with an equal say they drown it, and asking for two votes finds next to nothing).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from addresses import address_text
from batches import (
    ICMP,
    ICMPV6,
    MODELS,
    TCP,
    UDP,
    Deviation,
    EndReason,
    FlowBatch,
    FlowRecord,
    Rows,
    VerdictBatch,
)
from errors import ModelError
from features import LIVE, matrix
from ml import registry
from ml.baseline import NEEDED, Baseline, never_fitted
from ml.calibration import Calibration
from ml.explain import explain, glance
from ml.model import Model
from ml.recalibration import FILE, LOCAL_NEEDED, LocalScores
from ml.report import ModelReport
from ml.voting import ANOMALY, LOW, Voter, extreme_line, severities
from settings import Settings

__all__ = ["Predictor"]

log = logging.getLogger("secureflux.predict")

Values = NDArray[np.float64]

WEIGHT_WITHOUT_LIVE: Final = 0.5
PIECE: Final = 4096
EXPLAINED: Final = 4
"""Alerts of a batch explained by ablation, the oddest first; 1 ms each."""
GLANCED: Final = 64
"""Alerts of a batch after those, explained by distance alone: 5 ms for all."""
LEARNED_PER_SECOND: Final = 500
"""Flows of one second of packet time that may be learned from; a flood says one thing often."""
SAVE_RATE_S: Final = 3600.0

_LIVE: Final = MODELS.index("live")
_FOREIGN: Final = ("home", "industrial")
_PROVISIONAL: Final = (int(EndReason.ACTIVE), int(EndReason.QUIET))


class Predictor:
    """The three models and what they learn here; judged and taught by one thread.

    The doors for people (false positives, reset, status) may be called from any thread.
    background: train the live model in a thread of its own; otherwise at once.
    """

    def __init__(self, settings: Settings, *, background: bool = True) -> None:
        # A product of some hundred rows is done before a second thread has woken up, which then
        # spins on the core that packets wait for: 1.5 s CPU against 1.2, file to verdicts.
        threadpool_limits(limits=1, user_api="blas")
        self._alpha = settings.ALPHA
        self._weights = {
            "home": settings.WEIGHT_HOME,
            "industrial": settings.WEIGHT_INDUSTRIAL,
            "live": settings.WEIGHT_LIVE,
        }
        self._missing: dict[str, str] = {}
        self._foreign: dict[str, Model] = {}
        for name in _FOREIGN:
            folder = settings.path(f"{name.upper()}_MODEL_PATH")
            self._load(name, folder)
            if name in self._missing and folder == settings.path("DATA_DIR") / "models" / name:
                # Trained here by another version of the program: what it ships is still right.
                self._load(name, Settings().path(f"{name.upper()}_MODEL_PATH"))
        folder = settings.path("LIVE_MODEL_PATH")
        self.baseline = Baseline(
            folder, alpha=self._alpha, weight=settings.WEIGHT_LIVE, background=background
        )
        self._local = LocalScores(folder / FILE, self._foreign)
        self._forget_asked = False
        self._counted_with = self.baseline.model
        self._second = 0
        self._learned_in_second = 0
        self._rate_saved_s = -np.inf

    def _load(self, name: str, folder: Path) -> None:
        try:
            model = registry.load(folder)
            if model.name != name:
                raise ModelError(f"{folder} holds the {model.name} model, not the {name} model.")
            self._foreign[name] = model
            if name in self._missing:
                self._missing[name] += " The shipped one is used."
        except ModelError as error:
            log.warning("%s", error)
            self._missing[name] = f"The {name} model can't be used. {error}"

    @property
    def notices(self) -> list[str]:
        """What is lost by models that could not be loaded, in sentences."""
        return list(self._missing.values())

    @property
    def models(self) -> tuple[Model, ...]:
        """Those that are loaded, the one that knows this network best first."""
        live = self.baseline.model
        return (*(() if live is None else (live,)), *self._foreign.values())

    # --- judging --------------------------------------------------------------------------------

    def judge(self, flows: FlowBatch) -> VerdictBatch:
        """Verdicts row for row; provisional flows too."""
        rows = flows.rows
        n = len(rows)
        voters = self._voters()
        lines = np.array([np.nan if v is None else v.line for v in voters])
        scores = np.full((n, len(MODELS)), np.nan)
        raw = np.full((n, len(MODELS)), np.nan)
        beyond = np.zeros((n, len(MODELS)), bool)
        extreme = np.zeros(n, bool)
        autoencoder = np.full(n, np.nan)
        values = matrix(rows) if n else np.empty((0, len(LIVE)))
        for m, voter in enumerate(voters):
            if voter is None or not n:
                continue
            places = np.arange(n) if m == _LIVE else np.flatnonzero(_shown_enough(rows))
            # Piece by piece, so that a model's intermediate rows stay in the processor's cache.
            for start in range(0, len(places), PIECE):
                piece = places[start : start + PIECE]
                z = voter.model.transformed(values[np.ix_(piece, voter.model.columns)])
                seen = voter.model.look(z)
                raw[piece, m] = seen.raw
                scores[piece, m] = voter.calibration.score(seen.oddness)
                beyond[piece, m] = voter.calibration.beyond(seen.oddness)
                if "autoencoder" in voter.model.experts:
                    column = voter.model.expert_names.index("autoencoder")
                    autoencoder[piece] = seen.parts[:, column]
                extreme[piece] |= scores[piece, m] < voter.extreme
        votes, severity, borderline = severities(scores, lines)
        alert = severity > LOW
        return VerdictBatch(
            scores=scores,
            raw=raw,
            votes=votes,
            severity=severity,
            alert=alert,
            borderline=borderline,
            beyond=beyond,
            thresholds=lines,
            references=np.array([0 if v is None else len(v.calibration) for v in voters]),
            extreme=extreme,
            autoencoder=autoencoder,
            deviations=_deviations(voters, values, scores / lines, alert),
        )

    def _voters(self) -> list[Voter | None]:
        """In the order of MODELS; None where a model may not vote now."""
        live = self.baseline.model
        voters: list[Voter | None] = []
        for name in MODELS:
            model = live if name == "live" else self._foreign.get(name)
            calibration = self._calibration(name, model)
            if model is None or calibration is None:
                voters.append(None)
                continue
            weight = self._weights[name] if live is not None else WEIGHT_WITHOUT_LIVE
            voters.append(
                Voter(
                    model,
                    calibration,
                    calibration.threshold(weight, self._alpha),
                    extreme_line(calibration, self._local.rate.per_day),
                )
            )
        return voters

    def _model(self, name: str) -> Model | None:
        return self.baseline.model if name == "live" else self._foreign.get(name)

    def _calibration(self, name: str, model: Model | None) -> Calibration | None:
        """What a model's scores are counted on here; None before there is anything."""
        if name != "live":
            return self._local.calibration(name)
        return model.calibration if model is not None else None

    # --- learning -------------------------------------------------------------------------------

    def learn(self, flows: FlowBatch, verdicts: VerdictBatch, quarantined: set[str]) -> None:
        """Teach what has ended: flows no model objects to, of sources that may teach.

        quarantined: addresses of sources with incidents; what they taught before goes too.
        """
        if self._forget_asked:
            self._forget_asked = False
            self._local.forget()
        self.baseline.quarantine(frozenset(quarantined))
        self._local.quarantine(self.baseline.barred)
        ended = ~np.isin(flows.rows["end_reason"], _PROVISIONAL)
        if not ended.any():
            return
        now_s = int(flows.rows["last_ns"].max()) / 1e9
        self._local.rate.add(int((ended & ~verdicts.alert).sum()), now_s)
        if now_s - self._rate_saved_s >= SAVE_RATE_S:
            self._rate_saved_s = now_s
            self._local.save()
        places = self._sample(np.flatnonzero(ended), now_s)
        sources = [_source(row) for row in flows.rows[places]]
        # Every model that votes here has its scores counted here.
        services = flows.rows[["dst_hi", "dst_lo", "dst_port"]][places].tolist()
        self.baseline.watch(
            sources, services, verdicts.alert[places], verdicts.scores[places, _LIVE]
        )
        barred = self.baseline.barred
        self._local.quarantine(barred)
        teaches = np.array([source not in barred for source in sources], bool)
        places = places[teaches]
        if not len(places):
            return
        sources = [source for source in sources if source not in barred]
        rows = flows.rows[places]
        values = matrix(rows)
        self._count_local(rows, values, sources)
        self._count_anew()
        held = never_fitted(rows)
        # The fifth that sets the line takes flows whatever the votes said.
        taken = held | ~(verdicts.votes[places] == ANOMALY).any(axis=1)
        self.baseline.offer(
            values[taken],
            [source for source, take in zip(sources, taken, strict=True) if take],
            held[taken],
            now_s,
        )

    def _sample(self, places: NDArray[np.intp], now_s: float) -> NDArray[np.intp]:
        """At most LEARNED_PER_SECOND flows of a second, spread evenly over the batch."""
        if int(now_s) != self._second:
            self._second, self._learned_in_second = int(now_s), 0
        room = max(LEARNED_PER_SECOND - self._learned_in_second, 0)
        if len(places) > room:
            places = places[np.linspace(0, len(places) - 1, room).astype(np.intp)]
        self._learned_in_second += len(places)
        return places

    def _count_local(self, rows: Rows, values: Values, sources: Sequence[str]) -> None:
        """Feed the calibration of the models from elsewhere, while it lasts."""
        waiting = self._local.open_models
        enough = _shown_enough(rows)
        if not waiting or not enough.any():
            return
        counted = [source for source, take in zip(sources, enough, strict=True) if take]
        for model in waiting:
            z = model.transformed(values[np.ix_(enough, model.columns)])
            self._local.offer(model.name, model.look(z).oddness, counted)

    def _count_anew(self) -> None:
        """After each training of the live model the others are counted on the newest flows of the
        fifth that no vote has chosen, as soon as there are enough."""
        served = self.baseline.model
        if served is None or served is self._counted_with:
            return
        self._counted_with = served
        values = self.baseline.never_fitted()
        packets = values[:, [LIVE.index(f"Total {way} Packets") for way in ("Fwd", "Bwd")]]
        values = values[packets.sum(axis=1) >= 2]
        if len(values) < LOCAL_NEEDED:
            return
        for name, model in self._foreign.items():
            z = model.transformed(values[:, model.columns])
            self._local.renew(name, model.look(z).oddness)
        self._local.save()

    # --- what people decide ---------------------------------------------------------------------

    def add_confirmed(self, records: Sequence[FlowRecord]) -> str:
        """Flows a person called normal join the buffer at once; the token undoes it.

        Records from before a restart have lost their features and teach nothing.
        """
        whole = [record for record in records if len(record.get("features") or ()) == len(LIVE)]
        values = np.array([record["features"] for record in whole]).reshape(-1, len(LIVE))
        return self.baseline.add_confirmed(values, [record["id"] for record in whole])

    def forget_confirmed(self, token: str) -> None:
        self.baseline.withdraw(token)

    def reset_baseline(self) -> None:
        """Forget this network: the live model, its buffer, and the other models' calibration."""
        self.baseline.reset()
        # The calibration belongs to the analysis thread, which does it with the next flows.
        self._forget_asked = True

    def rollback_baseline(self) -> None:
        self.baseline.rollback()

    def retrain_baseline(self) -> None:
        self.baseline.retrain()

    def close(self) -> None:
        """Write what is learned."""
        self._local.save()
        self.baseline.close()

    # --- what is told ---------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """`models` and `baseline` of /api/live_status."""
        baseline = self.baseline.status()
        return {"models": [seen.status() for seen in self._seen(baseline)], "baseline": baseline}

    def describe(self, record: FlowRecord) -> list[dict[str, Any]]:
        """`models` of an incident: how each model sees this flow of its, for the dialog."""
        return [seen.of_flow(record) for seen in self._seen(self.baseline.status())]

    def _seen(self, baseline: Mapping[str, Any]) -> list[ModelReport]:
        return [
            ModelReport(
                name=name,
                model=self._model(name),
                voter=voter,
                collected=baseline["collected"] if name == "live" else self._local.collected(name),
                needed=NEEDED if name == "live" else LOCAL_NEEDED,
                waiting=baseline["sentence"] if name == "live" else self._missing.get(name, ""),
            )
            for name, voter in zip(MODELS, self._voters(), strict=True)
        ]


def _shown_enough(rows: Rows) -> NDArray[np.bool_]:
    """(n,) flows that models from elsewhere can judge: they never saw one of a single packet, nor
    one that was still going on, nor another protocol than these."""
    enough: NDArray[np.bool_] = (
        (rows["packets"].sum(axis=1) >= 2)
        & (rows["end_reason"] != int(EndReason.ACTIVE))
        & np.isin(rows["protocol"], (TCP, UDP, ICMP, ICMPV6))
    )
    return enough


def _source(row: Any) -> str:
    return address_text(int(row["src_hi"]), int(row["src_lo"]), int(row["ip_version"]))


def _deviations(
    voters: Sequence[Voter | None], values: Values, far: Values, alert: NDArray[np.bool_]
) -> list[list[Deviation]]:
    """Reasons of the alerts, by the model that objects most; those a flood leaves no time for
    have none.

    far: (n, 3) how far each score lies beyond its line, 1 on the line.
    """
    told: list[list[Deviation]] = [[] for _ in alert]
    places = np.flatnonzero(alert)
    if not len(places):
        return told
    beyond = np.where(np.isnan(far[places]), -np.inf, far[places])
    most = beyond.argmax(axis=1)
    order = np.argsort(-beyond.max(axis=1), kind="stable")[: EXPLAINED + GLANCED]
    for m, voter in enumerate(voters):
        for chosen, reasons in ((order[:EXPLAINED], explain), (order[EXPLAINED:], glance)):
            mine = places[chosen[most[chosen] == m]]
            if voter is None or not len(mine):
                continue
            own = values[np.ix_(mine, voter.model.columns)]
            found = reasons(voter.model, own, voter.model.transformed(own))
            for place, deviations in zip(mine, found, strict=True):
                told[place] = deviations
    return told
