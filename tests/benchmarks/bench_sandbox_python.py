"""``sandbox.python_guest``: a CPython component in its tenant's live instance against a persistent worker.

Both do the same work with the same guest library on 1 KiB of JSON: ours in WebAssembly behind the gate
of host calls, the baseline in a CPython process of its own that is given a line and answers a line.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kernel.context import Context
from kernel.manifest import load_manifest
from kernel.ports import GuestCall
from kernel.settings import Settings
from plugin_sdk.toolchain import Toolchains, build_plugin
from sandbox import open_runtime
from tests.benchmarks.measure import ROUNDS, per_call_us, row

CALLS = 300
SOURCE = Path(__file__).parent / "python_guest"
DRAFT = {"email": "ada@example.com", "name": "ada  lovelace", "attributes": {"text": "a" * 930}}


async def _measure(home: Path) -> tuple[list[float], list[float]]:
    folder = home / "plugin"
    shutil.copytree(SOURCE, folder)
    built = build_plugin(folder, Toolchains())
    data = built.path.read_bytes()
    asked, digest = load_manifest(folder), hashlib.sha256(data).hexdigest()
    runtime = open_runtime(Settings(home=home / "home"))
    await runtime.prepare(digest, data, asked)
    payload = json.dumps(DRAFT)
    call = GuestCall(asked.id, asked.version, digest, asked, "user_creating", payload, Context("acme"))
    line = payload.encode() + b"\n"
    with subprocess.Popen(  # noqa: ASYNC220 - the loop serves nobody else here
        [sys.executable, str(SOURCE / "worker.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        ask, answer = worker.stdin, worker.stdout

        def theirs() -> bytes:
            ask.write(line)
            ask.flush()
            return answer.readline()

        first = await runtime.call(call)
        if json.loads(first.output) != json.loads(theirs()):
            raise RuntimeError("the guest and the worker do not answer the same")

        async def ours() -> float:
            began = time.perf_counter()
            for _ in range(CALLS):
                await runtime.call(call)
            return (time.perf_counter() - began) / CALLS * 1e6

        guest, pipe = [], []
        for _ in range(ROUNDS + 1):
            guest.append(await ours())
            pipe.append(per_call_us(theirs, CALLS))
        ask.close()
    await runtime.close()
    return guest[1:], pipe[1:]


def rows() -> list[dict[str, Any]]:
    """Microseconds a call."""
    with tempfile.TemporaryDirectory() as home:
        guest, pipe = asyncio.run(_measure(Path(home)))
    return [
        row(
            "sandbox.python_guest", ours=guest, baseline=pipe, unit="us", target="<= 1.5x a worker's",
            met=lambda r: r <= 1.5,
        )
    ]  # fmt: skip


if __name__ == "__main__":
    print(rows())
