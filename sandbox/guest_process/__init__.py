"""A process of its own for guests that are not known yet, or that have flooded the host.

A guest's host calls are answered in Python, so a hostile one in the platform's own process takes the interpreter
from everybody, however well its memory and time are bounded. Here it takes it from its like: the platform's process
only starts the call, answers what must be asked outside, and reads what it came to. Nothing crosses but JSON
(:mod:`.wire`): :mod:`.keeper` starts and ends the process, :mod:`.link` hands it calls and reads what comes,
:mod:`.answering` answers what its guests ask for, :mod:`.asking` stands for the outside in there, and :mod:`.worker`
runs the calls with the same gate, threads and limits as the platform does (``python -m sandbox.guest_process``).

The process is no part of what the platform trusts: what comes from it is validated, belongs to a call under way or is
dropped, and is held against that call's grants and limits once more. Secrets do not enter it.
"""
