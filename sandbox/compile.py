"""Compiles one component: ``python -m sandbox.compile`` reads a job from standard input.

A process of its own, because a compiler fed by strangers is the part most worth distrusting, and
because compiling takes a core and hundreds of MB for seconds. It starts with an empty environment,
sets its own limits, writes one file and prints two JSON lines: the first when the artifact is whole,
the second with proven handles of the guest's memories. The second may never come: a wrong handle
aborts the process, which is why it is tried here. Then memory use is simply not measured.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA_BYTES = 3 << 30
FILE_BYTES = 512 << 20
START_SECONDS = 2.0
FIRST_INSTANCE = 1
"""wasmtime makes an instance of its own, number 0, in every store."""


@dataclass(frozen=True, slots=True)
class Job:
    """Paths of the component and of the file to write, seconds of CPU, MiB a guest may have, and
    whether its fuel is counted."""

    component: str
    output: str
    cpu_seconds: int
    memory_mb: int
    fuel: bool = False


def _limit(job: Job) -> None:
    import resource

    for kind, value in (
        (resource.RLIMIT_CPU, job.cpu_seconds),
        (resource.RLIMIT_DATA, DATA_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (ceiling, ceiling))


def _say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def main() -> int:
    """Run the job on standard input; the exit code is 0 if the artifact was written."""
    job = Job(**json.load(sys.stdin))
    _limit(job)

    from wasmtime import WasmtimeError
    from wasmtime.component import Component

    from sandbox.binary import outline
    from sandbox.engine import EngineShape, SandboxEngine
    from sandbox.errors import SandboxError
    from sandbox.guest import prove_memories
    from sandbox.linking import check_types, host_table

    engine = SandboxEngine(EngineShape(slots=8, memory_mb=job.memory_mb, threads=1, fuel=job.fuel))
    data = Path(job.component).read_bytes()
    try:
        component = Component(engine.engine, data)
        imports = check_types(component, engine, host_table())
    except WasmtimeError as error:
        _say(error={"detail": f"The component cannot be compiled: {str(error)[:1_500]}"})
        return 1
    except SandboxError as error:
        members = {"detail": error.detail, "expected": error.expected, "found": error.found, "fix": error.fix}
        _say(error=members)
        return 1
    with os.fdopen(os.open(job.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(component.serialize())
        file.flush()
        os.fsync(file.fileno())
    _say(imports=imports)
    found = outline(data).memories or ()
    handles = [(FIRST_INSTANCE + core, index) for core, index in found]
    _say(memories=prove_memories(component, engine, handles, START_SECONDS) if handles else [])
    return 0


if __name__ == "__main__":
    # Leave without the interpreter's goodbyes: freeing a large engine takes longer than compiling.
    code = main()
    sys.stdout.flush()
    os._exit(code)
