"""The promises of the archive and of the master, tried out; what was found is kept.

    python tests/durability/prove.py                 # every proof, in small
    python tests/durability/prove.py --full kills    # this one, as often as bench/results/durability.md says

A proof is a module beside this one with `prove(full) -> Iterator[Figure]`; its docstring says how it works.
Every proof that was run replaces its part of bench/results/durability.json, from which durability.md is
written, where it was run in full. Exits 1 on any breach.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from figure import Figure

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "durability.json"
PROOFS: tuple[str, ...] = (
    *("kills", "mpich", "soak", "rank_loss", "fuzz"),
    *("syscalls", "power_loss", "damage", "disk_full", "readers", "costs", "crash_points"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("proofs", nargs="*", metavar="NAME", help=f"of {', '.join(PROOFS)}; default: all")
    parser.add_argument("--full", action="store_true", help="as often as promised; some take half an hour")
    options = parser.parse_args()
    if unknown := set(options.proofs) - set(PROOFS):
        parser.error(f"unknown proofs {', '.join(sorted(unknown))}; expected some of {', '.join(PROOFS)}")
    broken = 0
    for name in options.proofs or PROOFS:
        began = time.monotonic()
        figures = []
        for figure in importlib.import_module(name).prove(options.full):
            figures.append(figure)
            broken += figure.broken
            print(line(figure), flush=True)
        if options.full:
            keep(name, figures, time.monotonic() - began)
    return 1 if broken else 0


def line(figure: Figure) -> str:
    verdict = f"{figure.broken} breaches" if figure.broken else "holds"
    seen = f"; {figure.seen}" if figure.seen else ""
    return f"{figure.claim}: {verdict}, tried {figure.tried} times{seen}"


def keep(name: str, figures: list[Figure], took_s: float) -> None:
    """Put what `name` found into the results, and write the table anew."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    described = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(described, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    results[name] = {
        "commit": commit,
        "minutes": round(took_s / 60, 1),
        "figures": [asdict(figure) for figure in figures],
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    rows = [
        "# What survives",
        "",
        "Written by `python tests/durability/prove.py --full`, proof by proof; each module there says how",
        f"it works. Python {platform.python_version()}, {platform.machine()}.",
        "",
        "| proof | claim | tried | broken | seen |",
        "|---|---|---|---|---|",
    ]
    for proof in (proof for proof in PROOFS if proof in results):
        for row in results[proof]["figures"]:
            cells = [proof, row["claim"], f"{row['tried']:,}", str(row["broken"]), row["seen"]]
            rows.append(f"| {' | '.join(cells)} |")
    rows += ["", "Commits: " + ", ".join(f"{p} {results[p]['commit']}" for p in PROOFS if p in results) + "."]
    RESULTS.with_suffix(".md").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    sys.exit(main())
