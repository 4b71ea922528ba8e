"""The house rules that code can be held to."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from statistics import median

import pytest

from docs.pages.operation import load_everything
from kernel.errors import KeelstoneError
from tests.support.sources import PACKAGES, ROOT, modules, shown

LONGEST = 400


def test_packages_import_only_whom_they_may() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_long_module_says_why() -> None:
    silent = []
    for path, source, tree in modules(*PACKAGES, "docs"):
        if source.count("\n") > LONGEST and not re.search(r"\blong\b", ast.get_docstring(tree) or "", re.IGNORECASE):
            silent.append(f"{shown(path)}: {source.count(chr(10))} lines")
    assert silent == [], "split them, or say in the docstring why they are long"


def test_modules_are_small_on_the_whole() -> None:
    sizes = [source.count("\n") for _, source, tree in modules() if tree.body]
    assert median(sizes) <= 150


def test_public_modules_classes_and_functions_are_described() -> None:
    silent = []
    for path, _, tree in modules():
        if tree.body and not ast.get_docstring(tree):
            silent.append(shown(path))
        for node in tree.body:
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if named and not node.name.startswith("_") and not ast.get_docstring(node):
                silent.append(f"{shown(path)}: {node.name}")
    assert silent == []


@pytest.mark.parametrize("module", ["kernel/ports.py", "plugin_sdk/services.py"])
def test_every_method_of_a_port_or_service_is_described(module: str) -> None:
    (tree,) = [tree for path, _, tree in modules(module.partition("/")[0]) if shown(path) == module]
    silent = [
        f"{node.name}.{method.name}"
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for method in node.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
        and not method.name.startswith("_")
        and not ast.get_docstring(method)
    ]
    assert silent == []


def _errors() -> list[type[KeelstoneError]]:
    load_everything()
    found, queue = [], [KeelstoneError]
    while queue:
        cls = queue.pop()
        if cls.__module__.partition(".")[0] in PACKAGES:
            found.append(cls)
        queue += cls.__subclasses__()
    return found


def test_each_error_has_a_code_of_its_own() -> None:
    owners: dict[str, list[str]] = {}
    for cls in _errors():
        if "code" in vars(cls):
            owners.setdefault(cls.code, []).append(f"{cls.__module__}.{cls.__qualname__}")
    assert {code: classes for code, classes in owners.items() if len(classes) > 1} == {}


def test_each_error_has_a_title_a_status_and_a_meaning() -> None:
    for cls in _errors():
        assert 400 <= cls.status <= 599, cls
        assert cls.title[0].isupper(), cls
        assert not cls.title.endswith("."), cls
        assert cls.__doc__, cls
        assert cls.code == cls.code.lower().strip(), cls


def _third_party(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module)
    tops = {name.partition(".")[0] for name in names}
    return tops - set(sys.stdlib_module_names) - set(PACKAGES)


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def test_whatever_is_imported_is_declared() -> None:
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *[r for extra in project["optional-dependencies"].values() for r in extra]]
    declared = {_normal(Requirement(line).name) for line in listed}
    distributions = packages_distributions()
    missing: dict[str, str] = {}
    for path, _, tree in modules():
        for name in _third_party(tree):
            if not declared & {_normal(d) for d in distributions.get(name, [])}:
                missing[name] = shown(path)
    assert missing == {}


def test_importing_a_package_does_nothing_else() -> None:
    # A fresh process: nothing written, no thread started, no logger set up by an import.
    script = (
        "import logging, os, threading, importlib\n"
        "before = set(os.listdir())\n"
        f"for name in {[*PACKAGES[:5], 'api.bootstrap', 'api.app', 'sandbox.runtime', 'marketplace.client']!r}:\n"
        "    importlib.import_module(name)\n"
        "assert set(os.listdir()) == before\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert not logging.getLogger().handlers\n"
    )
    folder = ROOT / "tests"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_module_can_be_imported() -> None:
    assert len({module.__name__ for module in load_everything()}) > 100
