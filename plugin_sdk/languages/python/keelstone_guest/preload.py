"""Modules that Python imports only when they are first needed, imported while building instead.

A component has no files: ``datetime.strptime`` or ``"…".encode("idna")`` would fail at run time with
ModuleNotFoundError or LookupError, though the author imported all that the documentation names.
"""

from __future__ import annotations

import _strptime  # type: ignore[import-not-found]  # noqa: F401 - datetime.strptime, time.strptime
import codecs
import linecache  # noqa: F401 - tracebacks
import tokenize  # noqa: F401 - tracebacks

ENCODINGS = (
    *("ascii", "latin-1", "cp1252", "utf-8", "utf-8-sig", "utf-16", "utf-32"),
    *("idna", "punycode", "base64", "hex"),
)

for _name in ENCODINGS:
    codecs.lookup(_name)
