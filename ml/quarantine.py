"""Sources whose flows are odd too often: they may not teach, and what they taught is forgotten.

Where every flow that does not alert may teach, an attack teaches by those of its flows that stay
below the line, and three of them make all others look ordinary. Two counts bar a source for its
next 1,000 flows:

- more than a tenth of its flows with ALERT, five of them at least;
- the sum over its flows of min(-ln p, 5) - 2.5, never below 0, beyond a limit (CUSUM, Page 1954;
  p by the live model), over all of them or over those to one service of one host. Passwords
  guessed over FTP are flows of p .01 to .02 one like the other: none of them alerts, ten of them
  in a row are no accident. From a device of the network they come between its harmless flows, and
  only those to that service add up.

Where more than half of the sources are odd, the model is wrong here and not they (a device moved to
another network, a model brought from one): then nobody is barred.

Only models whose scores are counted on this network's flows may be asked: one from elsewhere was
measured to bar three quarters of the normal flows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BARRED_FLOWS", "FEWEST_ALERTS", "Quarantine"]

SHARE: Final = 0.10
FEWEST_ALERTS: Final = 5
SLACK: Final = 2.5
"""Taken off -ln p of each flow, whose mean is 1 for normal ones."""
MOST_A_FLOW: Final = 5.0
LIMIT: Final = 16.0
"""Bars no source of an office (14 sources, three days of CIC-IDS2017) and 3 of 17 in the lab's
harmless half hour."""
BARRED_FLOWS: Final = 1000
MEMORY: Final = 200
"""Flows after which a source's counts are halved, so that a long good past hides no bad present."""
FEWEST_WRONG: Final = 3
"""Barred sources from which on they may be too many."""
MOST_SOURCES: Final = 8192
"""A flood from forged sources must not fill the memory: the one seen longest ago is forgotten."""
MOST_SERVICES: Final = 4 * MOST_SOURCES


@dataclass(slots=True)
class _Source:
    flows: float = 0.0
    alerts: float = 0.0
    odd: float = 0.0  # the CUSUM
    left: int = 0  # flows it stays barred


class Quarantine:
    """Counts by source; used by one thread at a time.

    >>> q = Quarantine()
    >>> q.count(["10.0.0.66"] * 5, [("10.0.0.1", 22)] * 5, np.ones(5, bool), np.full(5, -1.0))
    >>> q.barred
    frozenset({'10.0.0.66'})
    """

    def __init__(self) -> None:
        self._sources: OrderedDict[str, _Source] = OrderedDict()
        self._sums: OrderedDict[tuple[str, Hashable], float] = OrderedDict()
        self._odd: frozenset[str] = frozenset()
        self._barred: frozenset[str] = frozenset()

    @property
    def barred(self) -> frozenset[str]:
        return self._barred

    def count(
        self,
        sources: Sequence[str],
        services: Sequence[Hashable],
        alerts: NDArray[np.bool_],
        scores: NDArray[np.float64],
    ) -> None:
        """The n initiators' addresses of ended flows, the service of a host that each went to,
        (n,) which of these flows alert, and (n,) log10 p by the live model, NaN while there is
        none."""
        barred = set(self._odd)
        odd = np.minimum(-np.log(10.0) * scores, MOST_A_FLOW) - SLACK
        steps = np.where(np.isnan(odd), 0.0, odd)
        for source, service, alert, step in zip(
            sources, services, alerts.tolist(), steps.tolist(), strict=True
        ):
            if self._bars(source, service, alert, step):
                barred.add(source)
            else:
                barred.discard(source)
        while len(self._sources) > MOST_SOURCES:
            forgotten, _ = self._sources.popitem(last=False)
            barred.discard(forgotten)
        if barred != self._odd:
            self._odd = frozenset(barred)
        known = len(barred) >= FEWEST_WRONG and sum(
            one.left > 0 or one.flows >= FEWEST_ALERTS for one in self._sources.values()
        )
        self._barred = frozenset() if 2 * len(barred) > known > 0 else self._odd

    def _bars(self, source: str, service: Hashable, alert: bool, step: float) -> bool:
        """Whether the source is barred after this flow."""
        seen = self._sources.get(source)
        if seen is None:
            seen = self._sources[source] = _Source()
        self._sources.move_to_end(source)
        if seen.left > 0:
            seen.left -= 1
            return seen.left > 0
        seen.flows += 1
        seen.alerts += alert
        seen.odd = max(seen.odd + step, 0.0)
        often = seen.alerts >= FEWEST_ALERTS and seen.alerts > SHARE * seen.flows
        if often or max(seen.odd, self._to_service(source, service, step)) > LIMIT:
            seen.flows = seen.alerts = seen.odd = 0.0
            seen.left = BARRED_FLOWS
            return True
        if seen.flows >= MEMORY:
            seen.flows /= 2
            seen.alerts /= 2
        return False

    def _to_service(self, source: str, service: Hashable, step: float) -> float:
        """The sum over the source's flows to one service, this one included; only what is above 0
        is kept, and what passes the limit begins anew."""
        total = self._sums.pop((source, service), 0.0) + step
        if 0.0 < total <= LIMIT:
            self._sums[source, service] = total
            if len(self._sums) > MOST_SERVICES:
                self._sums.popitem(last=False)
        return total

    def clear(self) -> None:
        self._sources.clear()
        self._sums.clear()
        self._odd = frozenset()
        self._barred = frozenset()
