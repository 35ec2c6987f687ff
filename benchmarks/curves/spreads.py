"""Write what the bank's repeats say of the spread between seeds to the file that winnow ships.

Only data sets that winnow brings along are in it: a run on one's own data must not be judged by another set's spread.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from record import BANK, ROOT, read_bank

EMBEDDED = {
    "digits": "winnow.families.detection.data.digits_data",
    "pairs": "winnow.families.pairs.data.pairs_synthetic",
}
SHIPPED = ROOT / "src" / "winnow" / "results" / "spreads.json"
LEAST = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path, default=BANK)
    options = parser.parse_args()
    spreads = {}
    for name, target in EMBEDDED.items():
        runs = [
            run for run in read_bank(name, options.bank) if run["kind"] == "repeat" and run["status"] == "completed"
        ]
        values = [max(run["values"]) for run in runs]
        if len(values) < LEAST:
            print(f"{name}: {len(values)} repeats recorded, {LEAST} are needed")
            continue
        entry = {"set": name, "sigma": float(np.std(values, ddof=1)), "degrees": len(values) - 1}
        spreads[target] = {runs[0]["metric"]: entry}
        print(f"{name}: σ {entry['sigma']:.4f} from {len(values)} repeats")
    SHIPPED.write_text(json.dumps(spreads, indent=1) + "\n")


if __name__ == "__main__":
    main()
