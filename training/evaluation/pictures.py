"""The pictures of the report, drawn from what was measured."""

from __future__ import annotations

import numpy as np

from training.evaluation.candidates import OURS, PUBLISHED
from training.evaluation.measured import Measured
from training.evaluation.own_network import curve_of
from training.evaluation.plots import bars, curves

__all__ = ["pictures"]


def pictures(told: Measured) -> dict[str, str]:
    """Name of an SVG file -> its content."""
    drawn = {}
    runs = told.main
    if runs is not None:
        chosen = [
            (OURS, "ours"),
            ("ours, industrial features: forest alone", "our forest alone"),
            ("second specification's autoencoder", "autoencoder (second spec.)"),
            (PUBLISHED, "published recipe"),
            ("PyOD KNN", "PyOD KNN"),
        ]
        series = {short: curve_of(runs, name) for name, short in chosen if name in runs.names}
        drawn["detection-recall.svg"] = curves(
            f"Attack flows found, {runs.network}",
            series,
            x=("false alarms among harmless flows", 0.002, 0.5, True),
            y=("recall", 0.0, 1.0),
        )
        ours, published = runs.classes(OURS), runs.classes(PUBLISHED)
        drawn["detection-classes.svg"] = bars(
            "Recall at the own line for 1 %, by class",
            {label: (ours[label].mean, published[label].mean) for label in ours},
            ("ours", "published recipe"),
            y=("recall", 0.0, 1.0),
        )
    if told.learning:
        drawn["detection-learning.svg"] = curves(
            "AUC by the number of fitted flows",
            {
                short: [
                    (float(size), float(np.mean(seen[name])))
                    for size, seen in sorted(told.learning.items())
                ]
                for name, short in ((OURS, "ours"), (PUBLISHED, "published recipe"))
            },
            x=("fitted harmless flows", 100.0, 2000.0, True),
            y=("AUC", 0.5, 1.0),
        )
    if told.streamed:
        ways = list(dict.fromkeys(one.how for one in told.streamed))
        drawn["detection-poisoning.svg"] = bars(
            "AUC of the live model, an attack in its stream",
            {
                attack: [
                    float(
                        np.mean(
                            [
                                one.outcome.auc
                                for one in told.streamed
                                if (one.attack, one.how, one.inside) == (attack, way, False)
                            ]
                        )
                    )
                    for way in ways
                ]
                for attack in dict.fromkeys(one.attack for one in told.streamed)
            },
            ways,
            y=("AUC", 0.0, 1.0),
        )
    return drawn
