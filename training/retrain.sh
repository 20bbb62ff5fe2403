#!/bin/sh
# Train the models again with what people said of their alerts, and let the new versions serve.
#
#   training/retrain.sh [home|industrial|reduced|live|all] [--data DIR] [--data-dir D]
#
# False positives marked "Mark and learn" are merged with the training data (--data: the data set's
# layout or a folder of captures of normal traffic). A version that no longer sees one of the
# bundled attacks does not serve. The live model is trained on what it has collected, which holds
# the confirmed flows already; the program must not run meanwhile. Needs Python 3.11 alone: what
# else is missing is installed first.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

case "${1-}" in
-h | --help)
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
home | industrial | reduced | live | all)
    model=$1
    shift
    ;;
*)
    model=all
    ;;
esac

exec "${PYTHON:-python3}" "$here/run.py" train "$model" --with-feedback "$@"
