"""The bundled self-test: flows of attacks recorded in our own lab, which every version must see.

After each training the live model scores them: one that no longer flags what the version before
it flagged has learned the attack as normal and does not serve. Whoever calls flows normal is
shown which of these attacks that would hide.

The folder holds `flows.npz` (arrays only) and `manifest.json`; training/testbed/cut_selftest.py
makes both.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from batches import FLOW, Rows
from errors import ModelError
from ml.registry import MANIFEST, write_atomically

__all__ = ["FLOWS", "FOLDER", "MOST", "Attack", "attacks", "write"]

FOLDER: Final = Path(__file__).resolve().parent / "models" / "selftest"
FLOWS: Final = "flows.npz"
MOST: Final = 40
"""Flows kept of an attack, evenly over its time; floods have thousands that are alike."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack of the lab.

    name: its kind, as in the recording's labels (`ssh_brute`). title: in words, as a sentence
    goes on after "it no longer sees". pattern: the subpattern whose window tells such an attack
    (`CREDENTIAL_GUESSING`). rows: (n,) of dtype FLOW, n <= MOST, oldest first: flows the attacker
    opened towards its victim, all ended; one of a single packet is among them where the attack
    sends such. For spoofed floods every row has another source.
    """

    name: str
    title: str
    pattern: str
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)


@functools.cache
def attacks() -> tuple[Attack, ...]:
    """The bundled attacks, in the order of the recording; read once.

    ModelError, in one sentence, where the files are missing, damaged or of another version.
    """
    return _load(FOLDER)


def _load(folder: Path) -> tuple[Attack, ...]:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        content = (folder / FLOWS).read_bytes()
        if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
            raise ModelError(f"{folder / FLOWS} is not the file its manifest describes.")
        with np.load(io.BytesIO(content), allow_pickle=False) as packed:
            return tuple(
                Attack(told["name"], told["title"], told["pattern"], _rows(packed, told["name"]))
                for told in manifest["attacks"]
            )
    except OSError as error:
        raise ModelError(
            f"The self-test in {folder} can't be read ({error.strerror}); bring its files back."
        ) from error
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"The self-test in {folder} is damaged or of another version ({error}); bring its "
            "files back."
        ) from error


def _rows(packed: Any, name: str) -> Rows:
    rows: Rows = packed[name]
    if rows.dtype != FLOW:
        raise ValueError(f"the flows of {name} are not as this version makes them")
    rows.flags.writeable = False
    return rows


def write(folder: Path, found: tuple[Attack, ...], *, source: dict[str, Any]) -> None:
    """Write both files, the same bytes each time. source: where the flows come from."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for one in found:
            clean = np.zeros(len(one), FLOW)
            for name in FLOW.names or ():
                clean[name] = one.rows[name]  # not the padding, which holds anything
            part = io.BytesIO()
            np.lib.format.write_array(part, clean, allow_pickle=False)
            # numpy's savez would write the time of day into the file.
            entry = zipfile.ZipInfo(f"{one.name}.npy")
            archive.writestr(entry, part.getvalue(), zipfile.ZIP_DEFLATED)
    content = buffer.getvalue()
    manifest = {
        "attacks": [
            {"name": one.name, "title": one.title, "pattern": one.pattern, "flows": len(one)}
            for one in found
        ],
        "source": source,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_atomically(folder / FLOWS, content)
    write_atomically(folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
