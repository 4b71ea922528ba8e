"""Run every ``bench_*.py`` beside this file, print the table, write ``build/bench.json``."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent


def main() -> None:
    """Entry point of ``make bench``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="names of modules without bench_, e.g. hooks")
    chosen = parser.parse_args().only
    console = Console(width=150)
    rows: list[dict[str, Any]] = []
    for file in sorted(HERE.glob("bench_*.py")):
        if chosen and file.stem.removeprefix("bench_") not in chosen:
            continue
        console.print(f"measuring {file.stem} ...", style="dim")
        rows += importlib.import_module(f"tests.benchmarks.{file.stem}").rows()
    table = Table("row", "value", "unit", "baseline", "ratio", "target", "met", title="Keelstone against its baselines")
    for r in rows:
        met = "[green]yes[/]" if r["met"] else "[red]no[/]"
        table.add_row(r["name"], f"{r['value']}", r["unit"], f"{r['baseline']}", f"{r['ratio']}", r["target"], met)
    console.print(table)
    for r in rows:
        console.print(f"{r['name']} raw: {json.dumps(r['raw'])}", style="dim", soft_wrap=True)
    target = Path("build")
    target.mkdir(exist_ok=True)
    report = {"machine": platform.platform(), "python": platform.python_version(), "rows": rows}
    path = target / "bench.json"
    if chosen and path.exists():
        kept = [r for r in json.loads(path.read_text())["rows"] if r["name"] not in {n["name"] for n in rows}]
        report["rows"] = [*kept, *rows]
    path.write_text(json.dumps(report, indent=2))
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
