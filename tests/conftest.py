"""Tests run against the installed package, never against the source folder by accident.

After a plain `pip install .`, `python -m pytest` in the repository's root would import the folder
`fractopt/` beside it, which has no compiled module. An editable install is found without the path.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]
os.environ["PYTHONSAFEPATH"] = "1"  # for the processes that tests start
