"""Step 2, feature scaling: the transform, learned from the flows to fit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

# A script started by its path sees its own folder only; the rooms lie two folders up.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from training import pipeline
from training.arguments import Options, run


def main(arguments: Sequence[str] | None = None) -> int:
    def step(options: Options) -> None:
        pipeline.scale("reduced", options.work)

    return run("reduced", __doc__ or "", step, arguments)


if __name__ == "__main__":
    sys.exit(main())
