"""The host's page of interfaces and the WIT that authors build against say the same."""

from __future__ import annotations

import hashlib
import re

import pytest

from kernel.hookspecs import CONTRACT_GENERATIONS, HOOK_CONTRACT_VERSION
from kernel.manifest import Capabilities, manifest_from_dict
from plugin_sdk.toolchain.world import wit_of
from sandbox.contract import GENERATIONS, check_imports, keelstone_interface, wasi_interface
from sandbox.errors import ImportNotCovered
from sandbox.hostcalls import _FUNCTIONS, ADAPTERS
from sandbox.wasi import WASI, WasiCalls


def _wit_functions(version: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    text = re.sub(r"//.*", "", wit_of(version).read_text())
    assert f"package keelstone:plugin@{version};" in text
    for name, body in re.findall(r"interface ([a-z-]+) \{(.*?)\n\}", text, re.DOTALL):
        found[name] = dict(re.findall(r"([a-z-]+): (func\([^;]*);", body))
    return found


def _wit_text(function: str) -> str:
    """A WIT function in the words of Signature.text, named types written out."""
    named = {
        "failure": "record{code:string,message:string}",
        "level": "enum{debug,info,warn,error}",
        "header": "record{name:string,value:string}",
    }
    named["request"] = f"record{{method:string,url:string,headers:list<{named['header']}>,body:option<string>}}"
    named["entry"] = "record{key:string,value:string}"
    named["prompt"] = "record{model:string,system:option<string>,text:string,max-tokens:u32}"
    named["completion"] = "record{text:string,model:string,tokens:u32}"
    named["notice"] = "record{channel:string,recipient:string,subject:string,body:string}"
    named["response"] = f"record{{status:u16,headers:list<{named['header']}>,body:string}}"
    parameters, _, result = re.fullmatch(r"func\((.*?)\)( -> (.*))?", function, re.DOTALL).groups()  # type: ignore
    texts = [p.partition(":")[2].strip() for p in parameters.split(",") if p.strip()]

    def full(text: str) -> str:
        text = re.sub(r"\s", "", text)
        return re.sub(r"[a-z0-9]+", lambda m: named.get(m[0], m[0]), text)

    return f"({', '.join(map(full, texts))}) -> {full(result) if result else '()'}"


def test_every_generation_that_is_declared_is_served():
    assert [version.rpartition(".")[0] for version in CONTRACT_GENERATIONS] == list(GENERATIONS) == list(ADAPTERS)


@pytest.mark.parametrize("version", CONTRACT_GENERATIONS)
def test_every_function_of_the_wit_is_here_with_its_type(version):
    wit = {i: {n: _wit_text(f) for n, f in functions.items()} for i, functions in _wit_functions(version).items()}
    table = GENERATIONS[version.rpartition(".")[0]]
    assert wit == {i: {n: s.text() for n, s in functions.items()} for i, functions in table.items()}


def test_the_first_generation_stays_as_it_was_published():
    published = hashlib.sha256(wit_of("1.0.0").read_bytes()).hexdigest()
    assert published == "82893e05bed0b3af07b9e058a2bff7297b4c01d712da5bb0b00311248d24226d"


def test_every_function_has_an_implementation_and_no_implementation_lacks_a_function():
    served = {(i, n) for table in GENERATIONS.values() for i, functions in table.items() for n in functions}
    assert set(_FUNCTIONS) == served


def test_every_interface_is_a_capability():
    newest = GENERATIONS[HOOK_CONTRACT_VERSION.rpartition(".")[0]]
    assert set(newest) - {"types"} == set(Capabilities.model_fields)


def test_every_wasi_function_has_an_implementation():
    calls = WasiCalls(lambda _error, _line: None)
    for interface, functions in WASI.items():
        for name in functions:
            assert callable(calls.function(interface, name))


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("keelstone:plugin/kv@1.0.0", "1.0/kv", None),
        ("keelstone:plugin/kv@1.0.7", "1.0/kv", None),
        ("keelstone:plugin/kv@1.1.0", "1.1/kv", None),
        ("keelstone:plugin/clock@1.1.0", "1.1/clock", None),
        ("keelstone:plugin/clock@1.0.0", None, None),
        ("keelstone:plugin/kv@1.10.0", None, None),
        ("keelstone:plugin/kv@2.0.0", None, None),
        ("keelstone:plugin/kv", None, None),
        ("keelstone:plugin/kv@1.0.0\n", None, None),
        ("keelstone:plugin/root@1.0.0", None, None),
        ("wasi:cli/environment@0.2.12", None, "cli/environment"),
        ("wasi:http/outgoing-handler@0.2.0", None, None),
        ("wasi:cli/environment@0.3.0", None, None),
    ],
)
def test_interfaces_are_recognised_by_package_and_version(name, ours, theirs):
    assert keelstone_interface(name) == ours
    assert wasi_interface(name) == theirs


def test_imports_need_their_capability():
    manifest = manifest_from_dict(
        {
            "manifest": 1,
            "id": "acme/guest",
            "version": "1.0.0",
            "name": "Guest",
            "summary": "A guest of the sandbox's tests",
            "license": "Apache-2.0",
            "capabilities": {"kv": {"why": "keeps the score"}},
        }
    )
    check_imports(["keelstone:plugin/kv@1.0.0", "keelstone:plugin/types@1.0.0", "wasi:io/poll@0.2.0"], manifest)
    for name in ("keelstone:plugin/http@1.0.0", "wasi:http/types@0.2.0", "env", "keelstone:plugin/kv@1.2.0"):
        with pytest.raises(ImportNotCovered) as caught:
            check_imports(["keelstone:plugin/kv@1.0.0", name], manifest)
        assert caught.value.found == name
        assert caught.value.plugin == "acme/guest"
