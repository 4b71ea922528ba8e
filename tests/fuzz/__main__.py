"""``python -m tests.fuzz [--seconds 60] [--keep] [TARGET ...]``: fuzz each target for so long, one after the other.

Finds go to ``build/fuzz/<target>`` and crashers are named there; ``--keep`` adds to the corpus what
reached new code, few and small. Ends with 1 if anything crashed. Needs atheris (``make fuzz`` installs it).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
WORK = HERE.parents[1] / "build" / "fuzz"
TARGETS = tuple(sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py")))
KEPT = 40
"""Inputs of one target that ``--keep`` leaves, at most."""
_LARGEST = 2_000


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run came to. ``covered`` counts edges of instrumented code."""

    target: str
    executions: int
    covered: int
    inputs: int
    crashers: tuple[str, ...]


def fuzz(target: str, seconds: int, *, merge: Path | None = None) -> Figures:
    """Run one target in a process of its own: a defect may well end it."""
    finds = WORK / target
    finds.mkdir(parents=True, exist_ok=True)
    seeds = CORPUS / target
    folders = [str(merge), str(finds), str(seeds)] if merge else [str(finds), str(seeds)]
    options = ["-merge=1"] if merge else [f"-max_total_time={seconds}", "-use_value_profile=1", "-print_final_stats=1"]
    words = HERE / "words" / f"{target}.dict"
    if words.is_file():
        options.append(f"-dict={words}")
    options += ["-max_len=16384", "-timeout=20", "-rss_limit_mb=3000", f"-artifact_prefix={finds.parent}/{target}-"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.one", target, *options, *folders],
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=HERE.parents[1],
        check=False,
    )
    (finds.parent / f"{target}.log").write_text(done.stderr)
    said = done.stderr
    units = re.findall(r"stat::number_of_executed_units:\s*(\d+)", said) or re.findall(r"^#(\d+)", said, re.MULTILINE)
    covered = re.findall(r"cov: (\d+)", said)
    return Figures(
        target,
        int(units[-1]) if units else 0,
        int(covered[-1]) if covered else 0,
        sum(1 for _ in finds.iterdir()),
        tuple(re.findall(r"Test unit written to (\S+)", said)),
    )


def keep(target: str) -> int:
    """Take into the corpus what reaches code that the corpus does not, the smallest first; how many."""
    merged = WORK / f"{target}-merged"
    merged.mkdir(parents=True, exist_ok=True)
    for old in merged.iterdir():
        old.unlink()
    for seed in (CORPUS / target).iterdir():
        (merged / seed.name).write_bytes(seed.read_bytes())
    present = {path.read_bytes() for path in merged.iterdir()}
    fuzz(target, 0, merge=merged)
    fresh = sorted((path.read_bytes() for path in merged.iterdir()), key=lambda data: (len(data), data))
    fresh = [data for data in fresh if data not in present and len(data) <= _LARGEST][: max(0, KEPT - len(present))]
    for number, data in enumerate(fresh, len(present)):
        (CORPUS / target / f"found-{number:03}").write_bytes(data)
    return len(fresh)


def main() -> int:
    """Fuzz, print a table, and say whether anything crashed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"any of {', '.join(TARGETS)}; all of them")
    parser.add_argument("--seconds", type=int, default=60, help="seconds for each target (60)")
    parser.add_argument("--keep", action="store_true", help="add finds to the corpus")
    asked = parser.parse_args()
    unknown = sorted(set(asked.targets) - set(TARGETS))
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}")
    failed = False
    print(f"{'target':14} {'executions':>11} {'edges':>7} {'inputs':>7}  crashers")
    for target in asked.targets or TARGETS:
        found = fuzz(target, asked.seconds)
        failed = failed or bool(found.crashers)
        crashers = ", ".join(found.crashers) or "none"
        print(f"{target:14} {found.executions:11,} {found.covered:7,} {found.inputs:7,}  {crashers}", flush=True)
        if asked.keep:
            print(f"{'':14} {keep(target)} kept", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
