"""How processes of the sandbox's own are started: with its code and nothing else of the platform."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = str(Path(__file__).resolve().parent.parent)
"""Where the packages lie that a process of the sandbox imports."""


def bare_environment() -> dict[str, str]:
    """What such a process finds in its environment. The platform's own may have secrets."""
    return {"PYTHONPATH": os.pathsep.join([HERE, *filter(None, sys.path)]), "PYTHONDONTWRITEBYTECODE": "1"}
