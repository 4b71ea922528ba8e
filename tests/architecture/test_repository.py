"""Locks, documents and every other text under version control."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from docs.generate import PAGES
from tests.support.documents import RUN_BY, blocks, pages, swapped
from tests.support.sources import ROOT, shown, texts

LOCKS = ("run.lock", "dev.lock")
PIN = re.compile(r"^(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>[^ ;\\]+)", re.MULTILINE | re.IGNORECASE)


def _lock(name: str) -> tuple[str, dict[str, Version]]:
    text = (ROOT / "requirements" / name).read_text()
    return text, {m["name"].lower().replace("_", "-"): Version(m["version"]) for m in PIN.finditer(text)}


@pytest.mark.parametrize("name", [*LOCKS, "fuzz.lock"])
def test_a_lock_pins_each_package_by_hash_and_names_no_index(name: str) -> None:
    text, pinned = _lock(name)
    assert "://" not in text
    assert "index-url" not in text
    entries = re.split(r"\n(?=[a-z0-9])", text.strip(), flags=re.IGNORECASE)
    assert len(entries) == len(pinned)
    for entry in entries:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_locks_agree_with_each_other() -> None:
    (_, run), (_, dev) = _lock("run.lock"), _lock("dev.lock")
    assert {name: dev.get(name) for name in run} == run


def _wanted() -> Iterator[tuple[str, str]]:
    """(lock, requirement): what pyproject.toml asks for, and which lock must have it."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, groups = document["project"], document["dependency-groups"]
    for lock in LOCKS:
        for line in [*project["dependencies"], *groups["build"], *project["optional-dependencies"]["sdk"]]:
            yield lock, line
    for extra in ("postgres", "redis", "kafka", "otlp"):
        yield from (("dev.lock", line) for line in project["optional-dependencies"][extra])
    for group in ("dev", "bench"):
        yield from (("dev.lock", line) for line in groups[group])
    yield from (("fuzz.lock", line) for line in groups["fuzz"])


def test_the_locks_fit_the_project() -> None:
    pinned = {name: _lock(name)[1] for name in (*LOCKS, "fuzz.lock")}
    stale = []
    for lock, line in _wanted():
        requirement = Requirement(line)
        version = pinned[lock].get(requirement.name.lower())
        if version is None or version not in SpecifierSet(str(requirement.specifier), prereleases=True):
            stale.append(f"{lock}: {line}, found {version}")
    assert stale == [], "run `make lock`"


def test_npm_locks_name_no_registry() -> None:
    for path, text in texts():
        if path.name == "package-lock.json":
            assert '"resolved"' not in text, shown(path)


# Each pattern is written so that it does not find itself.
MACHINE = re.compile(r"(?<![\w.~$])/(?:roo[t]|hom[e]/[a-z]|Users/[a-z]|wor[k])/|\.pyen[v]")
REGISTRY = re.compile(r"https?://(?:[\w.-]*\.)?(?:pypi\.or[g]|pythonhosted\.or[g]|registry\.npmj[s]|repo\.mave[n])")
SECRET = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY|\bks_[a-z]+_[0-9a-f]{32}\.|\bAKIA[0-9A-Z]{16}\b|\beyJ[\w-]{20,}\.")
UNFINISHED = re.compile(
    r"(?:#|//|<!--)\s*(?:TOD[O]|FIXM[E]|XX[X]|HAC[K])\b|\b(?:NotImplementedErro[r]|lorem ipsu[m])\b"
)


@pytest.mark.parametrize(
    ("what", "pattern"),
    [("machine path", MACHINE), ("registry address", REGISTRY), ("secret", SECRET), ("unfinished work", UNFINISHED)],
    ids=lambda value: value if isinstance(value, str) else "pattern",
)
def test_no_file_holds_what_does_not_belong_there(what: str, pattern: re.Pattern[str]) -> None:
    found = []
    for path, text in texts():
        # What masks and refuses secrets is tried with made-up ones.
        if pattern is SECRET and path.is_relative_to(ROOT / "tests" / "unit"):
            continue
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{shown(path)}:{line}: {match.group()}")
    assert found == [], what


def test_the_reference_says_what_the_code_says() -> None:
    # In a process of its own: the pages come from wired platforms, which keep threads.
    done = subprocess.run([sys.executable, "-m", "docs.generate", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_commands_in_documents_are_run_by_the_test_that_is_named() -> None:
    with_commands = {shown(page) for page in pages() if any(block.is_shell for block in blocks(page))}
    assert with_commands == set(RUN_BY)
    for page, test in RUN_BY.items():
        source = (ROOT / test).read_text()
        assert Path(page).stem in source, f"{test} does not name {page}"


def test_the_readme_begins_with_the_two_commands_that_ci_proves() -> None:
    first, second = [block.text.strip() for block in blocks(ROOT / "README.md")][:2]
    assert (first, second) == ("make run", "make test")
    ci = (ROOT / ".ci" / "run").read_text()
    assert "prove_run.py" in ci
    for command in ("make test", "make check", "make connected"):
        assert f"\n{command}\n" in ci
    assert '["make", "run"]' in (ROOT / ".ci" / "prove_run.py").read_text()


LINK = re.compile(r"\]\((?!https?://|mailto:)(?P<target>[^)\s#]*)(?P<anchor>#[^)\s]+)?\)")
PROSE = (*pages(), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md")


def _anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PROSE, ids=shown)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for match in LINK.finditer(page.read_text()):
        target = (page.parent / match["target"]).resolve() if match["target"] else page
        there = target.exists()
        if there and match["anchor"] and target.suffix == ".md":
            there = match["anchor"][1:] in _anchors(target)
        if not there:
            broken.append(match.group())
    assert broken == []


def test_every_page_can_be_reached_from_the_index() -> None:
    seen, queue = set(), [ROOT / "docs" / "index.md"]
    while queue:
        page = queue.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        queue += [(page.parent / m["target"]).resolve() for m in LINK.finditer(page.read_text()) if m["target"]]
    lost = {shown(p) for p in pages() if p.name != "README.md"} - {shown(p) for p in seen if p.is_relative_to(ROOT)}
    assert lost == set()


def _refused_words() -> list[tuple[str, str]]:
    """(word, term) of the glossary's last column."""
    rows = []
    for line in (ROOT / "docs" / "reference" / "glossary.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[2] and cells[0] not in ("term",) and not cells[0].startswith("-"):
            rows += [(word.strip(), cells[0]) for word in cells[2].split(",")]
    return rows


def test_the_glossary_has_words_that_are_not_used() -> None:
    assert ("add-on", "plugin") in _refused_words()


@pytest.mark.parametrize(("word", "term"), _refused_words())
def test_one_thing_has_one_name(word: str, term: str) -> None:
    pattern = re.compile(rf"\b{re.escape(word)}s?\b", re.IGNORECASE)
    found = [shown(p) for p in pages() if p.name != "glossary.md" and pattern.search(p.read_text())]
    assert found == [], f"the word is {term}"


def test_the_generated_pages_are_named_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    assert [name for name in PAGES if f"reference/{name}" not in index] == []


def test_a_readers_addresses_are_swapped_once_and_never_inside_a_number() -> None:
    real = {"postgresql://k@localhost:5432/k": "postgresql://k@localhost:58701/k", "8701": "4001", "8702": "4002"}
    said = "run on postgresql://k@localhost:5432/k at 8701 and localhost:8702/x, not 18701"
    expected = "run on postgresql://k@localhost:58701/k at 4001 and localhost:4002/x, not 18701"
    assert swapped(said, real) == expected
    assert swapped(expected, {there: here for here, there in real.items()}) == said
    assert swapped(said, {}) == said
