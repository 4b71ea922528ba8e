"""Versions and ranges: what a range takes in, by npm's and Cargo's meaning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import VersionError
from kernel.versions import Version, parse_range, parse_version

numbers = st.integers(0, 4)
cores = st.tuples(numbers, numbers, numbers)
tags = st.sampled_from(["", "-alpha", "-alpha.1", "-rc.1", "-rc.2", "-0"])
versions = st.builds(lambda core, tag: parse_version(f"{core[0]}.{core[1]}.{core[2]}{tag}"), cores, tags)
releases = st.builds(lambda core: Version(*core), cores)
operators = st.sampled_from(["^", "~", ">=", "<=", ">", "<", "=", ""])
texts = st.builds(
    lambda op, core, parts, tag: op + ".".join(map(str, core[:parts])) + (tag if parts == 3 else ""),
    operators,
    cores,
    st.integers(1, 3),
    tags,
)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("^1.2.3", ["1.2.3", "1.9.0"], ["1.2.2", "2.0.0", "2.0.0-rc.1"]),
        ("^0.2.3", ["0.2.3", "0.2.9"], ["0.3.0", "1.0.0"]),
        ("^0.0.3", ["0.0.3"], ["0.0.4", "0.0.2"]),
        ("^0.0", ["0.0.0", "0.0.9"], ["0.1.0"]),
        ("^0", ["0.0.1", "0.9.0"], ["1.0.0"]),
        ("^1", ["1.0.0", "1.9.9"], ["0.9.9", "2.0.0"]),
        ("~1.2.3", ["1.2.3", "1.2.9"], ["1.3.0", "1.2.2"]),
        ("~1.2", ["1.2.0", "1.2.9"], ["1.3.0"]),
        ("~1", ["1.0.0", "1.9.0"], ["2.0.0"]),
        (">=1.2,<2", ["1.2.0", "1.9.9"], ["1.1.9", "2.0.0"]),
        (">1", ["2.0.0"], ["1.0.0", "1.9.9"]),
        (">1.2", ["1.3.0"], ["1.2.9"]),
        ("<=1", ["1.9.9", "0.1.0"], ["2.0.0"]),
        ("=1.2", ["1.2.0", "1.2.7"], ["1.3.0"]),
        ("1.2.3", ["1.2.3", "1.2.3+build.7"], ["1.2.4", "1.2.3-rc.1"]),
        ("*", ["0.0.0", "9.9.9"], ["1.0.0-rc.1"]),
        (" >= 1.0 , < 2.0 ", ["1.5.0"], ["2.0.0"]),
        (">=2,<1", [], ["1.0.0", "2.0.0"]),
    ],
)
def test_a_range_takes_in_what_npm_and_cargo_would(text, inside, outside):
    wanted = parse_range(text)
    assert [v for v in inside if v not in wanted] == []
    assert [v for v in outside if v in wanted] == []


@pytest.mark.parametrize(
    "text", ["", "1.2.x", "^", "latest", "1.2.3.4", ">=1 <2", "^1.2,", "v1.0.0", "01.0.0", "1.0.0-", "^-1", "\u0661.0"]
)
def test_what_is_no_range_is_refused_with_the_text_found(text):
    with pytest.raises(VersionError) as caught:
        parse_range(text)
    assert caught.value.found is not None
    assert caught.value.status == 422


@pytest.mark.parametrize("text", ["", "1", "1.0", "1.0.0\n", " 1.0.0", "1.0.0-", "01.0.0", "1.0.0-01", "1.²0.0", None])
def test_what_is_no_version_is_refused(text):
    with pytest.raises(VersionError):
        parse_version(text)


def test_a_pre_release_is_taken_only_where_one_of_the_same_version_is_named():
    assert "1.2.3-rc.2" in parse_range("^1.2.3-rc.1")
    assert "1.2.3-alpha" not in parse_range("^1.2.3-rc.1")
    assert "1.3.0-rc.1" not in parse_range("^1.2.3-rc.1")
    assert "1.3.0" in parse_range("^1.2.3-rc.1")
    assert "1.2.3-rc.1" not in parse_range(">=1.2.0,<2")


def test_things_that_are_not_versions_are_in_no_range():
    assert 1 not in parse_range("*")


@given(texts, versions)
def test_caret_and_tilde_never_leave_their_span(text, version):
    if version not in parse_range(text):
        return
    base = parse_range(text).bounds[0].version
    if text.startswith("^"):
        assert version.major == base.major
        assert version >= base
    if text.startswith("~"):
        assert version.major == base.major
        assert version >= base


@given(texts, texts, versions)
def test_a_comma_means_and(first, second, version):
    both = parse_range(f"{first},{second}")
    if not version.prerelease:
        assert (version in both) == (version in parse_range(first) and version in parse_range(second))
    elif version in both:
        assert version in parse_range(first) or version in parse_range(second)


@given(releases, releases, releases)
def test_a_range_of_one_comparator_has_no_holes(low, middle, high):
    low, middle, high = sorted([low, middle, high])
    for op in ("^", "~", ">=", "<=", ">", "<"):
        wanted = parse_range(f"{op}{middle}")
        if low in wanted and high in wanted:
            assert middle in wanted


@given(releases)
def test_every_version_is_in_its_own_ranges(version):
    for op in ("^", "~", ">=", "<=", "=", ""):
        assert version in parse_range(f"{op}{version}")
    for op in (">", "<"):
        assert version not in parse_range(f"{op}{version}")
