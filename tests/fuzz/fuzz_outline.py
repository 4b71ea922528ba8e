"""The reader of a component's outside, which sees a stranger's binary before anything else does."""

from __future__ import annotations

from sandbox.binary import outline
from sandbox.errors import BadComponent
from tests.fuzz.feed import told

HEAD = b"\0asm\x0d\x00\x01\x00"


def TestOneInput(data: bytes) -> None:
    """Any bytes, and any bytes that begin well."""
    for component in (data, HEAD + data):
        try:
            seen = outline(component)
        except BadComponent as error:
            told(error)
            continue
        assert seen.least_memory >= 0
        assert all(core >= 0 and index >= 0 for core, index in seen.memories or ())
