"""Weaknesses of parts, offline: the ecosystems' versions, how grave, the index of exports, and its bounds."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import NotFound, ValidationFailed
from marketplace.osv import export
from marketplace.osv.export import read_export
from marketplace.osv.index import Imported, WeaknessIndex
from marketplace.osv.severity import base_score, severity_of
from marketplace.osv.versions import Span, is_affected, package_name
from marketplace.osv.weakness import read_weakness

NOW = "2026-11-23T10:00:00Z"


def osv(
    id_: str = "GHSA-aaaa-bbbb-cccc",
    package: str = "left-pad",
    ecosystem: str = "npm",
    events: Any = ({"introduced": "0"}, {"fixed": "1.3.1"}),
    **more: Any,
) -> dict[str, Any]:
    span = {"type": "ECOSYSTEM" if ecosystem == "PyPI" else "SEMVER", "events": list(events)}
    affected = [{"package": {"ecosystem": ecosystem, "name": package}, "ranges": [span] if events else []}]
    base = {"id": id_, "modified": "2026-01-01T00:00:00Z", "summary": "It pads too much", "affected": affected}
    return {**base, **more}


def zipped(path: Path, *documents: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, said in enumerate(documents):
            text = said if isinstance(said, str) else json.dumps(said)
            archive.writestr(f"{number}.json", text)
    return path


def span(*events: tuple[str, str], versions: tuple[str, ...] = ()) -> Span:
    return Span((events,) if events else (), versions)


@pytest.mark.parametrize(
    ("ecosystem", "found", "inside", "outside"),
    [
        ("npm", span(("introduced", "0"), ("fixed", "1.3.1")), ["0.1.0", "1.3.0", "1.3.1-rc.1"], ["1.3.1", "2.0.0"]),
        ("npm", span(("introduced", "1.0.0"), ("last_affected", "1.2.0")), ["1.0.0", "1.2.0"], ["0.9.0", "1.2.1"]),
        (
            "crates.io",
            span(("introduced", "0.0.0-0"), ("fixed", "0.2.5"), ("introduced", "0.3.0"), ("fixed", "0.3.3")),
            ["0.0.0-0", "0.2.4", "0.3.0"],
            ["0.2.5", "0.2.9", "0.3.3"],
        ),
        ("Go", span(("introduced", "0"), ("fixed", "0.3.8")), ["v0.3.7", "0.3.7"], ["v0.3.8", "v1.0.0"]),
        (
            "Go",
            span(("introduced", "1.25.0-0"), ("fixed", "1.25.4")),
            ["1.25", "1.25rc1", "1.25.3"],
            ["1.24.9", "1.25.4"],
        ),
        ("Go", span(("introduced", "0"), ("fixed", "1.4.0")), ["v1.3.2+incompatible"], ["v2.0.0+incompatible"]),
        ("PyPI", span(("introduced", "0"), ("fixed", "2.0rc1")), ["1.9.post1", "2.0b2"], ["2.0rc1", "2.0", "1!1.0"]),
        ("PyPI", span(versions=("1.0", "1.10.0")), ["1.0", "1.0.0", "1.10"], ["1.1", "1.10.1"]),
        ("npm", span(("introduced", "0")), ["0.0.1", "99.0.0", "not a version", ""], []),
        ("npm", span(("introduced", "0"), ("fixed", "1.0.0")), [], ["not a version", ""]),
        ("npm", span(versions=("7.7.7",)), ["7.7.7"], ["7.7.8", "not a version"]),
        ("npm", span(("introduced", "0"), ("limit", "2.0.0")), ["1.0.0"], ["2.0.0", "3.0.0"]),
    ],
)
def test_versions_are_affected_by_their_ecosystems_rules(
    ecosystem: str, found: Span, inside: list[str], outside: list[str]
) -> None:
    assert [version for version in inside if not is_affected(ecosystem, found, version)] == []
    assert [version for version in outside if is_affected(ecosystem, found, version)] == []


NUMBERS = st.tuples(*(st.integers(0, 5),) * 3)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_range_has_what_lies_between_its_ends(first: Any, last: Any, asked: Any) -> None:
    first, last = sorted((first, last))
    text = {each: ".".join(map(str, each)) for each in (first, last, asked)}
    events = [("introduced", text[first]), ("fixed", text[last])]
    for ordered in (events, events[::-1]):
        expected = first <= asked < last
        for ecosystem in ("npm", "crates.io", "Go", "PyPI"):
            assert is_affected(ecosystem, Span((tuple(ordered),)), text[asked]) is expected


@pytest.mark.parametrize(
    ("vector", "score"),
    [
        # From FIRST's examples and the specification's own calculator.
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H", 7.5),
        ("CVSS:3.0/AV:L/AC:L/PR:H/UI:N/S:U/C:L/I:L/A:L", 4.2),
        ("CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:N/I:L/A:N", 3.7),
        ("CVSS:3.1/AV:L/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", 0.0),
        ("CVSS:3.1/AV:N", None),
        ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", None),
        ("9.8", None),
    ],
)
def test_base_scores_are_those_of_the_specification(vector: str, score: float | None) -> None:
    assert base_score(vector) == score


def test_severity_is_the_databases_word_else_the_vectors_else_medium() -> None:
    vector = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
    scored = {"severity": [{"type": "CVSS_V3", "score": vector}]}
    assert severity_of(scored) == ("critical", vector)
    assert severity_of({**scored, "database_specific": {"severity": "MODERATE"}}) == ("medium", vector)
    assert severity_of({"affected": [{"database_specific": {"cvss": vector}}]}) == ("critical", vector)
    assert severity_of({"affected": [{"database_specific": {"informational": "unmaintained"}}]}) == ("low", None)
    assert severity_of({}) == ("medium", None)


def test_names_have_one_spelling_where_their_registry_says_so() -> None:
    assert package_name("PyPI", "Typing_Extensions") == "typing-extensions"
    assert package_name("crates.io", "serde_json") == package_name("crates.io", "serde-json")
    assert package_name("Go", "github.com/BurntSushi/toml") == "github.com/burntsushi/toml"
    assert package_name("npm", "@types/node") == "@types/node"


def test_an_export_is_taken_in_once_and_a_newer_word_takes_the_place_of_an_older(tmp_path: Path) -> None:
    index = WeaknessIndex(tmp_path)
    file = zipped(
        tmp_path / "all.zip",
        osv(),
        osv("MAL-2026-1", "evil", events=({"introduced": "0"},)),
        osv("GHSA-x", "nowhere", "Packagist"),
        "not json",
        {"no": "id"},
    )
    assert not index.exists
    assert index.take(read_export(file), NOW) == Imported(5, 2, 1, 0, 1, 2)
    assert index.take(read_export(file), NOW) == Imported(5, 0, 0, 2, 1, 2)
    assert [(w.id, w.severity) for w in index.about("npm", "left-pad", "1.3.0")] == [("GHSA-aaaa-bbbb-cccc", "medium")]
    assert index.about("npm", "left-pad", "1.3.1") == []
    assert index.about("crates.io", "left-pad", "1.3.0") == []
    assert index.about("npm", "evil", "9.9.9")[0].malicious
    assert index.generation() == 1
    index.take([osv(modified="2026-02-01T00:00:00Z", events=({"introduced": "2.0.0"},))], NOW)
    assert index.about("npm", "left-pad", "1.3.0") == []
    index.take([osv()], NOW)
    assert index.about("npm", "left-pad", "1.3.0") == []
    index.take([osv("MAL-2026-1", "evil", modified="2026-03-01T00:00:00Z", withdrawn="2026-03-01T00:00:00Z")], NOW)
    assert index.about("npm", "evil", "9.9.9") == []
    state = index.state()
    assert (state.imports, state.imported, state.weaknesses) == (3, NOW, {"npm": 2})
    index.close()


def test_of_what_several_databases_say_the_gravest_word_is_told(tmp_path: Path) -> None:
    index = WeaknessIndex(tmp_path)
    grave = {"database_specific": {"severity": "CRITICAL"}}
    index.take([osv("PYSEC-2026-1", aliases=["CVE-2026-1"]), osv("GHSA-1", aliases=["CVE-2026-1"], **grave)], NOW)
    assert [w.id for w in index.about("npm", "left-pad", "1.0.0")] == ["GHSA-1"]
    index.close()


def test_a_failing_import_changes_nothing(tmp_path: Path) -> None:
    index = WeaknessIndex(tmp_path)

    def breaking() -> Any:
        yield osv()
        raise ValidationFailed("the disk ended")

    with pytest.raises(ValidationFailed):
        index.take(breaking(), NOW)
    assert (index.generation(), index.about("npm", "left-pad", "1.0.0")) == (0, [])
    index.close()


def test_what_is_no_export_is_refused_and_bombs_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        list(read_export(tmp_path / "nothing.zip"))
    (tmp_path / "text").write_text("text")
    with pytest.raises(ValidationFailed):
        list(read_export(tmp_path / "text"))
    with pytest.raises(ValidationFailed):
        list(read_export(zipped(tmp_path / "empty.zip")))
    (tmp_path / "one.json").write_text(json.dumps(osv()))
    assert list(read_export(tmp_path / "one.json")) == [osv()]
    monkeypatch.setattr(export, "MAX_DOCUMENT", 1_000)
    bomb = zipped(tmp_path / "bomb.zip", osv(), osv(summary="A" * 2_000_000))
    assert bomb.stat().st_size < 10_000
    assert list(read_export(bomb)) == [osv(), None]


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {"id": "../../etc"},
        osv(modified="yesterday"),
        osv(affected=[{"package": {"ecosystem": "npm"}}]),
        osv(affected=7),
        osv(affected=[{"package": {"ecosystem": "npm", "name": "x"}, "ranges": [{"events": [7]}]}]),
    ],
)
def test_what_is_no_weakness_is_said_to_be_none(said: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_weakness(said)


@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_nothing_in_a_document_surprises_the_reader(said: Any) -> None:
    for document in (said, osv(affected=said), osv(affected=[said]), osv(severity=said), osv(aliases=said)):
        try:
            read_weakness(document)
        except ValueError:
            continue
