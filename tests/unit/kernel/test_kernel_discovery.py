"""Plugins found by entry point: manifests are read, nothing is imported, and who stays out says why."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.discovery import PLUGINS, Found, choose, entry_points, find_plugins, load_entry_point
from kernel.errors import ManifestError, PluginFailed
from tests.support.extensions import on_path, write_extension
from tests.support.manifests import make_manifest

BUILT_IN = ["keelstone/catalog", "keelstone/identity", "keelstone/tenants", "keelstone/users"]


def found(id: str, version: str = "1.0.0", requires=None, kernel: str = "^1.0") -> Found:
    manifest = make_manifest(id, version, kind="builtin", requires={"kernel": kernel, "plugins": requires or {}})
    return Found(manifest, Path("/nowhere"), lambda: None)


def test_the_built_in_plugins_are_found_like_any_other():
    ids = [f.manifest.id for f in find_plugins()]
    assert ids == sorted(ids)
    assert set(BUILT_IN) <= set(ids)


def test_an_extension_on_the_path_is_found_and_not_imported(tmp_path):
    write_extension(tmp_path, "kst_found", "acme/found", "raise RuntimeError('imported')")
    with on_path(tmp_path):
        (mine,) = [f for f in find_plugins() if f.manifest.id == "acme/found"]
        assert mine.folder == tmp_path / "kst_found"
        assert "kst_found.plugin" not in sys.modules
        with pytest.raises(RuntimeError, match="imported"):
            mine.load()
    assert "acme/found" not in [f.manifest.id for f in find_plugins()]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"manifest": "id = "}, "is not TOML"),
        ({"more": 'colour = "red"'}, "unknown key colour"),
        ({"kind": "guest"}, "says it is a guest"),
    ],
)
def test_an_extension_with_a_wrong_manifest_is_named_with_its_file(tmp_path, changes, told):
    write_extension(tmp_path, "kst_wrong", "acme/wrong", **changes)
    with on_path(tmp_path), pytest.raises(ManifestError, match=told) as caught:
        find_plugins()
    assert "kst_wrong" in str(caught.value.file)


def test_two_packages_that_are_one_plugin_are_refused(tmp_path):
    write_extension(tmp_path, "kst_users", "keelstone/users", kind="builtin")
    with on_path(tmp_path), pytest.raises(ManifestError, match="Two packages") as caught:
        find_plugins()
    assert caught.value.plugin == "keelstone/users"


def test_an_entry_point_that_is_not_there_or_does_not_load_is_named(tmp_path):
    with pytest.raises(PluginFailed, match="no entry point 'ghost'"):
        load_entry_point(PLUGINS, "ghost")
    write_extension(tmp_path, "kst_bad", "acme/bad", "import no_such_module_at_all")
    with on_path(tmp_path), pytest.raises(PluginFailed, match="no_such_module_at_all"):
        load_entry_point(PLUGINS, "kst_bad")


def test_entry_points_come_by_name():
    names = [p.name for p in entry_points(PLUGINS)]
    assert names == sorted(names)


# ---------------------------------------------------------------------------- choosing


def test_who_is_left_out_and_who_depends_on_it_say_why():
    plugins = [
        found("acme/base"),
        found("acme/middle", requires={"acme/base": "^1"}),
        found("acme/top", requires={"acme/middle": "^1"}),
        found("acme/alone"),
    ]
    running, held = choose(plugins, ["acme/base", "acme/ghost"])
    assert [f.manifest.id for f in running] == ["acme/alone"]
    assert {h.plugin: h.reason for h in held} == {
        "acme/base": "left out by KEELSTONE_PLUGINS_DISABLED",
        "acme/ghost": "named in KEELSTONE_PLUGINS_DISABLED and not there",
        "acme/middle": "requires acme/base ^1, which is not running",
        "acme/top": "requires acme/middle ^1, which is not running",
    }


def test_a_version_that_does_not_fit_and_a_kernel_that_does_not_fit_are_told():
    running, held = choose([found("acme/base", "2.0.0"), found("acme/top", requires={"acme/base": "^1"})], [])
    assert [f.manifest.id for f in running] == ["acme/base"]
    assert held[0].reason == "requires acme/base ^1, there is 2.0.0"
    assert choose([found("acme/old", kernel="^7")], [])[1][0].reason == "needs kernel ^7"


def test_requirements_start_before_those_who_require_them():
    plugins = [found("acme/aa", requires={"acme/zz": "*"}), found("acme/zz")]
    assert [f.manifest.id for f in choose(plugins, [])[0]] == ["acme/zz", "acme/aa"]


def test_a_circle_is_refused_by_name():
    plugins = [found("acme/aa", requires={"acme/bb": "*"}), found("acme/bb", requires={"acme/aa": "*"})]
    with pytest.raises(PluginFailed, match="circle: acme/aa, acme/bb"):
        choose(plugins, [])


NAMES = ["acme/pa", "acme/pb", "acme/pc", "acme/pd"]
worlds = st.tuples(
    *(st.sets(st.sampled_from(NAMES[:index])) if index else st.just(set()) for index in range(len(NAMES)))
)


@given(worlds, st.sets(st.sampled_from(NAMES)))
def test_each_plugin_either_runs_with_all_it_requires_or_says_why_not(world, disabled):
    plugins = [found(name, requires=dict.fromkeys(needs, "*")) for name, needs in zip(NAMES, world, strict=True)]
    running, held = choose(plugins, disabled)
    on = [f.manifest.id for f in running]
    assert sorted(on + [h.plugin for h in held]) == NAMES
    for name, needs in zip(NAMES, world, strict=True):
        if name in on:
            assert needs <= set(on[: on.index(name)])
        else:
            assert name in disabled or needs - set(on)
