"""What an expert is: one way to see what is odd. A model asks several and adds up what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ml.autoencoder import Autoencoder
from ml.forest import Forest
from ml.mixture import Mixture
from ml.neighbours import Neighbours
from ml.transform import Whitening

__all__ = ["EXPERTS", "Expert", "ForestExpert"]

Values = NDArray[np.float64]


class Expert(Protocol):
    """Made from the flows of one model, and never changed."""

    def oddness(self, z: Values) -> Values:
        """(n, k) transformed features -> (n,), higher is odder, in a unit of its own."""
        ...

    def to_arrays(self) -> dict[str, NDArray[Any]]: ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Expert:
        """ModelError for arrays that do not fit together, KeyError where one is missing."""
        ...


@dataclass(frozen=True, slots=True)
class ForestExpert:
    """The isolation forest on whitened features; oddness 0..1, minus scikit-learn's score."""

    whitening: Whitening
    forest: Forest

    def oddness(self, z: Values) -> Values:
        return -self.forest.score(self.whitening.apply(z))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {**self.whitening.to_arrays(), **self.forest.to_arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ForestExpert:
        return cls(Whitening.from_arrays(arrays), Forest.from_arrays(arrays))


class _Kind(NamedTuple):
    """weight: how much an expert counts in the sum. smallest_tail: of its calibration, in its
    unit; a tenth of what is usual.

    Neighbours and mixture carry the detection; the forest and the autoencoder are blind for
    password guessing, where a full say of theirs hides what the others see (FTP- and SSH-Patator
    of CIC-IDS2017: AUC .95 with weights of 1, .97 with these, .98 without them; floods, where
    they do help, lose nothing).
    """

    kind: type[Expert]
    weight: float
    smallest_tail: float


EXPERTS: Final[Mapping[str, _Kind]] = {
    "forest": _Kind(ForestExpert, 0.5, 0.002),
    "neighbours": _Kind(Neighbours, 1.0, 0.02),
    "mixture": _Kind(Mixture, 1.0, 0.5),
    "autoencoder": _Kind(Autoencoder, 0.25, 0.2),
}
