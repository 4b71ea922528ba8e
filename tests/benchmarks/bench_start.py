"""``platform.start``: ``keelstone serve`` to ready, against importing the same third-party packages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import row

ROUNDS = 5
# What a started platform has loaded that is neither ours nor the standard library's.
_LIST = """
import asyncio, json, sys
from pathlib import Path
from kernel.settings import Settings
from api.bootstrap import bootstrap
from api.app import create_app
import uvicorn

async def main():
    platform = bootstrap(Settings(home=Path(sys.argv[1])))
    create_app(platform, manage=False)
    await platform.start()
    await platform.stop()
asyncio.run(main())
ours = {"kernel", "plugin_sdk", "sandbox", "marketplace", "api", "plugins", "__main__"}
third = sorted(
    name for name, module in list(sys.modules.items())
    if "site-packages" in (getattr(module, "__file__", None) or "") and name.split(".")[0] not in ours
)
print(json.dumps(third))
"""
_IMPORT = """
import importlib, json, sys
for name in json.load(open(sys.argv[1])):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
"""


def _serve(home: Path) -> float:
    environment = {**os.environ, "KEELSTONE_HOME": str(home), "KEELSTONE_PORT": "0"}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", "serve", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        while True:
            try:
                with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
                    if answer.status == 200:
                        return time.perf_counter() - began
            except urllib.error.URLError:
                time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def _import(names: Path) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", _IMPORT, str(names)], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def rows() -> list[dict[str, Any]]:
    """The row; the first start (making database and keys) is outside the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        home, names = Path(folder) / "home", Path(folder) / "names.json"
        listed = subprocess.run(
            [sys.executable, "-c", _LIST, str(home)], check=True, capture_output=True, text=True
        ).stdout
        names.write_text(listed.strip().splitlines()[-1])
        _serve(home)
        _import(names)
        ours, baseline = [], []
        for _ in range(ROUNDS):
            ours.append(_serve(home))
            baseline.append(_import(names))
    return [row("platform.start", ours=ours, baseline=baseline, unit="s", target="ratio <= 3", met=lambda r: r <= 3)]
