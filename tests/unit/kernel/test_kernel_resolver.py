"""The resolver: what it answers satisfies everything, and a conflict says who wants what."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import ResolutionConflict, VersionError
from kernel.hookspecs import HOOK_CONTRACT_VERSION
from kernel.resolver import Requirement, kernel_fits, resolve, start_order
from kernel.versions import parse_range
from tests.support.manifests import make_manifest

NAMES = ["acme/aa", "acme/bb", "acme/cc", "acme/dd"]
VERSIONS = ["1.0.0", "1.1.0", "2.0.0"]
RANGES = ["*", "^1", "^2", "~1.0", ">=1.1", "^9"]


@st.composite
def catalogues(draw):
    """Plugins whose requirements name only plugins before them in the alphabet (no circles)."""
    found = {}
    for index, name in enumerate(NAMES):
        chosen = draw(st.lists(st.sampled_from(VERSIONS), unique=True, max_size=3))
        found[name] = [
            make_manifest(
                name,
                version,
                requires={
                    "kernel": draw(st.sampled_from(["^1.0", "^1.0", "^7"])),
                    "plugins": draw(
                        st.dictionaries(st.sampled_from(NAMES[:index]), st.sampled_from(RANGES), max_size=2)
                        if index
                        else st.just({})
                    ),
                },
            )
            for version in chosen
        ]
    return found


@settings(max_examples=60, deadline=None)
@given(catalogues(), st.dictionaries(st.sampled_from(NAMES), st.sampled_from(RANGES), min_size=1, max_size=3))
def test_an_answer_satisfies_every_requirement_and_a_conflict_says_why(known, asked):
    wanted = [Requirement(plugin, text) for plugin, text in asked.items()]
    try:
        chosen = resolve(wanted, lambda name: known.get(name, []))
    except ResolutionConflict as error:
        conflict, chosen = error, []
    else:
        conflict = None
    if conflict is not None:
        assert not any_solution(known, asked)
        assert conflict.extra["causes"]
        assert all(cause in conflict.detail for cause in conflict.extra["causes"])
        return
    by_id = {m.id: m for m in chosen}
    assert len(by_id) == len(chosen)
    for plugin, text in asked.items():
        assert by_id[plugin].semver in parse_range(text)
    seen = set()
    for manifest in chosen:
        assert kernel_fits(manifest)
        for plugin, text in manifest.requires.plugins.items():
            assert by_id[plugin].semver in parse_range(text)
            assert plugin in seen
        seen.add(manifest.id)


def any_solution(known, asked) -> bool:
    """Brute force: is there any choice of versions that satisfies everything?"""
    import itertools

    options = [[None, *known[name]] for name in NAMES]
    for choice in itertools.product(*options):
        by_id = {m.id: m for m in choice if m is not None}
        fits = all(p in by_id and by_id[p].semver in parse_range(r) for p, r in asked.items())
        fits = fits and all(
            kernel_fits(m)
            and all(p in by_id and by_id[p].semver in parse_range(r) for p, r in m.requires.plugins.items())
            for m in by_id.values()
        )
        if fits:
            return True
    return False


def test_a_conflict_names_who_wants_what_through_whom_and_what_there_is():
    known = {
        "acme/app": [make_manifest("acme/app", requires={"plugins": {"acme/base": "^2"}})],
        "acme/other": [make_manifest("acme/other", requires={"plugins": {"acme/base": "^1"}})],
        "acme/base": [make_manifest("acme/base", "1.4.0"), make_manifest("acme/base", "2.1.0")],
    }
    with pytest.raises(ResolutionConflict) as caught:
        resolve([Requirement("acme/app", "*"), Requirement("acme/other", "*")], lambda n: known.get(n, []))
    detail = caught.value.detail
    assert "acme/app 1.0.0 wants acme/base ^2" in detail
    assert "acme/other 1.0.0 wants acme/base ^1" in detail
    assert "there is acme/base 2.1.0, 1.4.0" in detail


def test_an_unknown_plugin_is_named():
    with pytest.raises(ResolutionConflict, match="no version of acme/ghost is known"):
        resolve([Requirement("acme/ghost", "*")], lambda _: [])


def test_a_plugin_for_another_kernel_is_not_chosen_and_the_conflict_says_so():
    known = [make_manifest(requires={"kernel": "^99"})]
    with pytest.raises(ResolutionConflict, match=f"needs kernel \\^99, this is {HOOK_CONTRACT_VERSION}"):
        resolve([Requirement("acme/hello", "*")], lambda _: known)


def test_the_newest_is_chosen_but_what_is_there_already_is_kept():
    known = [make_manifest(version=v) for v in ("1.0.0", "1.2.0", "1.1.0")]
    newest = resolve([Requirement("acme/hello", "^1")], lambda _: known)
    kept = resolve([Requirement("acme/hello", "^1")], lambda _: known, present={"acme/hello": "1.1.0"})
    moved = resolve([Requirement("acme/hello", ">1.1")], lambda _: known, present={"acme/hello": "1.1.0"})
    assert [m.version for m in newest + kept + moved] == ["1.2.0", "1.1.0", "1.2.0"]


def test_backtracking_finds_an_older_version_that_fits_all():
    known = {
        "acme/app": [
            make_manifest("acme/app", "2.0.0", requires={"plugins": {"acme/base": "^2"}}),
            make_manifest("acme/app", "1.0.0", requires={"plugins": {"acme/base": "^1"}}),
        ],
        "acme/base": [make_manifest("acme/base", "1.0.0")],
    }
    chosen = resolve([Requirement("acme/app", "*")], lambda n: known[n])
    assert [(m.id, m.version) for m in chosen] == [("acme/base", "1.0.0"), ("acme/app", "1.0.0")]


def test_a_circle_of_requirements_is_refused_by_name():
    circle = {
        "acme/aa": [make_manifest("acme/aa", requires={"plugins": {"acme/bb": "*"}})],
        "acme/bb": [make_manifest("acme/bb", requires={"plugins": {"acme/aa": "*"}})],
    }
    with pytest.raises(ResolutionConflict, match="circle: acme/aa, acme/bb"):
        resolve([Requirement("acme/aa", "*")], lambda n: circle[n])


def test_a_range_that_cannot_be_read_is_an_error_of_the_caller():
    with pytest.raises(VersionError):
        resolve([Requirement("acme/hello", "newest please")], lambda _: [make_manifest()])


def test_start_order_puts_optional_requirements_first_and_ignores_absent_ones():
    order = start_order(
        [
            make_manifest("acme/aa", requires={"optional": {"acme/zz": "*", "acme/absent": "*"}}),
            make_manifest("acme/zz"),
        ]
    )
    assert [m.id for m in order] == ["acme/zz", "acme/aa"]


@given(st.permutations(NAMES))
def test_start_order_does_not_depend_on_the_order_given(names):
    needs = {"acme/aa": ["acme/dd"], "acme/bb": ["acme/dd"], "acme/cc": [], "acme/dd": ["acme/cc"]}
    manifests = [make_manifest(n, requires={"plugins": dict.fromkeys(needs[n], "*")}) for n in names]
    assert [m.id for m in start_order(manifests)] == ["acme/cc", "acme/dd", "acme/aa", "acme/bb"]
