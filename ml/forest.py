"""Isolation forest as flat arrays and one compiled walk, equal to scikit-learn's scores.

A scikit-learn call costs milliseconds however few the rows; this one costs microseconds. Nodes
stand in breadth-first order with the right child beside the left one, so a step is

    node = child + (x is not <= threshold)

without a branch to mispredict. A leaf points to itself (its threshold is +inf), so every walk
takes the same number of steps, and the trees of a row advance together, so that the processor
overlaps their memory reads.

scikit-learn compares float32(x) with a float64 threshold; the rows here are float32 and the
threshold is the largest float32 not above it, which decides the same.

The other compiled loop of the models, `interpolate`, stands here too: one file of compiled code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batches import Rows
from compiled import compiled
from errors import ModelError

__all__ = ["NODE", "Forest", "interpolate", "path_sums", "warm"]

Values = NDArray[np.float64]

NODE: Final = np.dtype([("threshold", np.float32), ("child", np.int32), ("feature", np.int32)])
"""child: place of the left child; a leaf's own place."""

_FEATURE_BITS: Final = np.int32(8)
_FEATURE_MASK: Final = np.int32((1 << 8) - 1)
_MOST_NODES: Final = 1 << (31 - 8)


@compiled
def path_sums(
    splits: NDArray[np.int32],
    thresholds: NDArray[np.float32],
    missing_left: NDArray[np.uint8],
    paths: Values,
    roots: NDArray[np.int32],
    steps: int,
    rows: NDArray[np.float32],
    places: NDArray[np.int32],
    out: Values,
) -> None:
    """out[i] = path lengths of rows[i], summed over the trees.

    splits, thresholds, missing_left, paths: all trees one after the other; places: scratch, one a
    tree. A node in two plain arrays takes a quarter less time than in one of records.
    """
    for i in range(len(rows)):
        row = rows[i]
        missing = False
        for j in range(len(row)):
            missing |= row[j] != row[j]
        for t in range(len(roots)):
            places[t] = roots[t]
        if missing:
            # Each split says which way an unknown value goes.
            for t in range(len(roots)):
                p = places[t]
                for _ in range(steps):
                    split = splits[p]
                    x = row[split & _FEATURE_MASK]
                    left = x <= thresholds[p]
                    if x != x:
                        left = missing_left[p] != 0
                    p = (split >> _FEATURE_BITS) + np.int32(not left)
                places[t] = p
        else:
            for _ in range(steps):
                for t in range(len(roots)):
                    p = places[t]
                    split = splits[p]
                    right = not row[split & _FEATURE_MASK] <= thresholds[p]
                    places[t] = (split >> _FEATURE_BITS) + np.int32(right)
        total = 0.0
        for t in range(len(roots)):
            total += paths[places[t]]
        out[i] = total


@compiled
def interpolate(
    values: Values,
    xs: Values,
    zs: Values,
    starts: NDArray[np.int64],
    out: Values,
    outside: NDArray[np.bool_],
) -> None:
    """out[i, j] = values[i, j] on the line through the knots of column j, flat outside of them.

    A value that is not finite counts as 0; outside (n, k): whether one lies beyond the knots.
    xs, zs: the knots of all columns one after the other; column j has starts[j] : starts[j + 1].
    The same as numpy.interp column by column, whose calls cost 2 us each for a single row.
    """
    for j in range(values.shape[1]):
        first, last = starts[j], starts[j + 1] - 1
        knots = last - first + 1
        # The largest power of two of knots, and how many do not fit into it.
        power = np.int64(0)
        while (np.int64(2) << power) <= knots:
            power += 1
        rest = knots - (np.int64(1) << power)
        for i in range(values.shape[0]):
            x = values[i, j]
            if not np.isfinite(x):
                x = 0.0
            outside[i, j] = x < xs[first] or x > xs[last]
            if x <= xs[first]:
                out[i, j] = zs[first]
            elif x >= xs[last]:
                out[i, j] = zs[last]
            else:
                # The last knot not above x. Sums of comparisons instead of branches, of which
                # every other one would be predicted wrong: 22 ns a value against 38.
                low = first + rest * np.int64(xs[first + rest] <= x)
                for bit in range(power - 1, -1, -1):
                    low += np.int64(xs[low + (np.int64(1) << bit)] <= x) << bit
                slope = (zs[low + 1] - zs[low]) / (xs[low + 1] - xs[low])
                out[i, j] = slope * (x - xs[low]) + zs[low]


@dataclass(frozen=True, slots=True)
class Forest:
    """A fitted isolation forest.

    nodes: (n_nodes,) of dtype NODE; missing_left: (n_nodes,) 1 where an unknown value goes left.
    paths: (n_nodes,) float64 path length of a row that ends in this leaf, 0 elsewhere.
    roots: (n_trees,) place of each tree's first node; steps: splits on the longest way down.
    normal_path: mean path length of a row of the training set (Liu et al. 2008, c(n)).
    """

    nodes: Rows
    missing_left: NDArray[np.uint8]
    paths: Values
    roots: NDArray[np.int32]
    steps: int
    normal_path: float
    features: int
    # What the walk reads: child << _FEATURE_BITS | feature, and the threshold, of each node.
    _splits: NDArray[np.int32] = field(init=False, repr=False)
    _thresholds: NDArray[np.float32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.nodes) > _MOST_NODES or self.features > _FEATURE_MASK + 1:
            raise ModelError(
                f"A forest may have {_MOST_NODES:,} nodes and {_FEATURE_MASK + 1} features, "
                f"not {len(self.nodes):,} and {self.features}."
            )
        splits = self.nodes["child"] << _FEATURE_BITS | self.nodes["feature"]
        object.__setattr__(self, "_splits", splits)
        object.__setattr__(self, "_thresholds", np.ascontiguousarray(self.nodes["threshold"]))

    def score(self, values: Values) -> Values:
        """(n, features) -> (n,) score_samples: -1..0, lower is odder."""
        # Always a copy: a read-only buffer would be a second signature, compiled on the spot.
        rows = np.array(values, np.float32, order="C")
        if rows.ndim != 2 or rows.shape[1] != self.features:
            raise ModelError(f"The forest wants {self.features} columns, not {rows.shape[1:]}.")
        sums = np.empty(len(rows))
        places = np.empty(len(self.roots), np.int32)
        path_sums(
            self._splits,
            self._thresholds,
            self.missing_left,
            self.paths,
            self.roots,
            self.steps,
            rows,
            places,
            sums,
        )
        # A training set of one row has no path; scikit-learn then divides by nothing and says 1.
        normal = len(self.roots) * self.normal_path
        relative = sums / normal if normal else np.ones_like(sums)
        scores: Values = -(2.0**-relative)
        return scores

    @classmethod
    def flatten(cls, estimator: Any) -> Forest:
        """From a fitted sklearn.ensemble.IsolationForest; only its public attributes are used."""
        trees = [
            _flat_tree(tree.tree_, np.asarray(columns))
            for tree, columns in zip(
                estimator.estimators_, estimator.estimators_features_, strict=True
            )
        ]
        sizes = np.array([len(nodes) for nodes, _, _, _ in trees])
        roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
        nodes = np.concatenate([nodes for nodes, _, _, _ in trees])
        nodes["child"] += np.repeat(roots, sizes)
        return cls(
            nodes=nodes,
            missing_left=np.concatenate([left for _, left, _, _ in trees]),
            paths=np.concatenate([paths for _, _, paths, _ in trees]),
            roots=roots,
            steps=max(depth for _, _, _, depth in trees),
            normal_path=float(_mean_path(np.array([estimator.max_samples_]))[0]),
            features=int(estimator.n_features_in_),
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "forest_threshold": self.nodes["threshold"],
            "forest_child": self.nodes["child"],
            "forest_feature": self.nodes["feature"].astype(np.uint8),
            "forest_missing_left": self.missing_left,
            "forest_paths": self.paths,
            "forest_roots": self.roots,
            "forest_shape": np.array([self.steps, self.features], np.int64),
            "forest_normal_path": np.array([self.normal_path]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Forest:
        """Raises ModelError for arrays that would lead a walk outside of them."""
        nodes = np.empty(len(arrays["forest_child"]), NODE)
        for name in ("threshold", "child", "feature"):
            nodes[name] = arrays[f"forest_{name}"]
        steps, features = (int(n) for n in arrays["forest_shape"])
        forest = cls(
            nodes=nodes,
            missing_left=np.ascontiguousarray(arrays["forest_missing_left"], np.uint8),
            paths=np.ascontiguousarray(arrays["forest_paths"], np.float64),
            roots=np.ascontiguousarray(arrays["forest_roots"], np.int32),
            steps=steps,
            normal_path=float(arrays["forest_normal_path"][0]),
            features=features,
        )
        forest._check()
        return forest

    def _check(self) -> None:
        """The compiled walk has no bounds checks, so a file's arrays are checked once here."""
        n = len(self.nodes)
        places = np.arange(n)
        child = self.nodes["child"]
        leaf = child == places
        feature = self.nodes["feature"]
        sound = (
            self.roots.ndim == 1
            and self.missing_left.shape == self.paths.shape == (n,)
            and (leaf | ((child > places) & (child + 1 < n))).all()
            # Neither a number nor an unknown value leads on from a leaf.
            and (self.nodes["threshold"][leaf] == np.inf).all()
            and (self.missing_left[leaf] != 0).all()
            and ((feature >= 0) & (feature < self.features)).all()
            and len(self.roots) > 0
            and ((self.roots >= 0) & (self.roots < n)).all()
            and np.isfinite(self.paths).all()
            and 0 <= self.steps <= n
            and np.isfinite(self.normal_path)
        )
        if not sound:
            raise ModelError("The forest's arrays do not fit together.")


def _mean_path(n: NDArray[Any]) -> Values:
    """Mean path length of an unsuccessful search in a tree of n rows (Liu et al. 2008, eq. 1)."""
    n = n.astype(np.float64)
    more = np.maximum(n, 3.0)
    path = 2.0 * (np.log(more - 1.0) + np.euler_gamma) - 2.0 * (more - 1.0) / more
    out: Values = np.where(n > 2, path, np.where(n == 2, 1.0, 0.0))
    return out


def _flat_tree(tree: Any, columns: NDArray[Any]) -> tuple[Rows, NDArray[np.uint8], Values, int]:
    """(nodes, missing_left, paths, depth) of one scikit-learn tree, places counted from 0."""
    left, right = tree.children_left, tree.children_right
    order, depths = [np.zeros(1, np.int64)], [np.zeros(1)]
    while True:
        splits = order[-1][left[order[-1]] >= 0]
        if not len(splits):
            break
        # Breadth first: the children of one level, each pair side by side, are the next level.
        level = np.column_stack([left[splits], right[splits]]).ravel()
        order.append(level)
        depths.append(np.full(len(level), float(len(depths))))
    old = np.concatenate(order)
    depth = np.concatenate(depths)
    new = np.empty(len(old), np.int32)
    new[old] = np.arange(len(old))
    leaf = left[old] < 0

    nodes = np.empty(len(old), NODE)
    nodes["threshold"] = np.where(leaf, np.inf, _float32_below(tree.threshold[old]))
    nodes["feature"] = np.where(leaf, 0, columns[tree.feature[old]])
    nodes["child"] = np.where(leaf, new[old], new[left[old]])
    goes_left = np.zeros(len(old), np.uint8)
    state = tree.__getstate__()["nodes"]
    if "missing_go_to_left" in state.dtype.names:
        goes_left[:] = state["missing_go_to_left"][old]
    goes_left[leaf] = 1
    paths = np.where(leaf, depth + _mean_path(tree.n_node_samples[old]), 0.0)
    return nodes, goes_left, paths, len(order) - 1


def _float32_below(values: Values) -> NDArray[np.float32]:
    """The largest float32 not above each value."""
    near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)


def warm() -> None:
    """Compile (or load from the cache) both loops before the first packet needs them."""
    knot = np.zeros(1)
    interpolate(
        np.zeros((1, 1)), knot, knot, np.array([0, 1]), np.empty((1, 1)), np.empty((1, 1), bool)
    )
    leaf = np.array([(np.inf, 0, 0)], NODE)
    Forest(
        nodes=leaf,
        missing_left=np.ones(1, np.uint8),
        paths=np.ones(1),
        roots=np.zeros(1, np.int32),
        steps=0,
        normal_path=1.0,
        features=1,
    ).score(np.zeros((1, 1)))
