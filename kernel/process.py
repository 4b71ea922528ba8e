"""What a process that serves does once, when all that stays is in memory."""

from __future__ import annotations

import gc


def settle() -> None:
    """Take what is in memory now out of the garbage collector's rounds, for as long as the process lives.

    A quarter of a million objects of modules, manifests and schemas live until the end. Walking them in each full
    collection stops every thread for 100 to 200 ms on a quiet machine, time in which requests wait and guests'
    deadlines pass (https://docs.python.org/3/library/gc.html#gc.freeze). Only for processes that are the platform's
    own, once they are about to serve; reference counts free these objects as before, only their cycles stay.
    """
    gc.collect()
    gc.freeze()


def settled_objects() -> int:
    """How many objects the garbage collector no longer looks at."""
    return gc.get_freeze_count()
