"""What pages tell of a model: whether it votes, on what it learned, how it sees a flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from batches import FlowRecord
from ml.calibration import rarity
from ml.model import Model
from ml.voting import Voter

__all__ = ["ModelReport"]

_LABELS: Final = {"home": "Home", "industrial": "Industrial", "live": "Live"}


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One of the three models as it is now.

    model: None where there is none (yet). voter: None where it may not vote.
    collected, needed: flows towards its training (live) or calibration. waiting: the sentence for
    a live model that warms up, or what is wrong with the files of another.
    """

    name: str
    model: Model | None
    voter: Voter | None
    collected: int
    needed: int
    waiting: str

    def status(self) -> dict[str, Any]:
        """An entry of `models` in /api/live_status."""
        state, sentence = self._state()
        model, voter = self.model, self.voter
        return {
            "name": self.name,
            "state": state,
            "version": model.version if model else None,
            "trained_on": self._learned(),
            "features": len(model.features) if model else None,
            "threshold": voter.line if voter else None,
            "reference": len(voter.calibration) if voter else 0,
            "calibrated": self.needed if voter else self.collected,
            "needed": self.needed,
            "sentence": sentence,
        }

    def of_flow(self, record: FlowRecord) -> dict[str, Any]:
        """An entry of an incident's `models`: score, vote, rarity and the picture of normal."""
        score = record["scores"].get(self.name)
        told: dict[str, Any] = {
            "name": self.name,
            "label": _LABELS[self.name],
            "score": score,
            "autoencoder": record["scores"].get("autoencoder") if self.name == "live" else None,
            "threshold": self.voter.line if self.voter else None,
            "vote": record["model_votes"].get(self.name, "UNAVAILABLE"),
            "rarity": None,
            "reason_no_vote": self._why_silent(record) if score is None else None,
            "histogram": None,
            "histogram_low": None,
            "histogram_high": None,
            "learned": self._learned(),
        }
        if self.voter is None:
            return told
        picture = self.voter.calibration.histogram(self.voter.line)
        told["histogram"] = picture["counts"]
        told["histogram_low"], told["histogram_high"] = picture["low"], picture["high"]
        if score is not None:
            reference = len(self.voter.calibration)
            # The oddest normal flow scores log10(2 / (n + 1)), anything odder 1 / (n + 1) at most.
            beyond = bool(score < np.log10(1.5 / (reference + 1)))
            told["rarity"] = rarity(score, reference, beyond)
        return told

    def _state(self) -> tuple[str, str]:
        if self.voter is not None:
            share = 10**self.voter.line
            return "READY", (
                f"The {self.name} model votes. It objects to about {share:.2%} of normal flows."
            )
        if self.name == "live":
            return "WARMING UP", self.waiting
        if self.model is None:
            return "UNAVAILABLE", self.waiting
        return "CALIBRATING", (
            f"The {self.name} model is calibrated on the first flows of this network: "
            f"{self.collected} of {self.needed}. It votes after that."
        )

    def _why_silent(self, record: FlowRecord) -> str:
        """Why it did not vote on a flow, to stand after "Does not vote:"."""
        if self.name != "live" and record["packets"] < 2:
            return "one packet shows it too little"
        if self.name != "live" and record["state"] == "active":
            return "the flow had not ended yet"
        if self.name != "live" and record["protocol"] not in ("TCP", "UDP", "ICMP", "ICMPv6"):
            return f"it never learned from {record['protocol']}"
        if self.voter is not None:
            return "it was not ready when this flow came"
        counted = f"{self.collected} of {self.needed} flows"
        if self.name == "live":
            return f"not trained yet, {counted}"
        if self.model is None:
            return "its files can't be used"
        return f"not calibrated here yet, {counted}"

    def _learned(self) -> str:
        """What it has learned from; "" where there is no model."""
        if self.model is None:
            return ""
        flows = int(self.model.manifest["training"]["flows"])
        where = "this network" if self.name == "live" else "other networks"
        return f"{flows:,} normal flows of {where}"
