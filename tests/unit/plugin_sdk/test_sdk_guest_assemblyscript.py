"""The guest library for AssemblyScript names what the platform has. That it works is shown in e2e."""

import re

import pytest

from kernel.hookspecs import HOOKS
from kernel.manifest import Capabilities
from plugin_sdk.toolchain.assemblyscript import LIBRARY

SOURCE = LIBRARY / "keelstone"
GUEST_HOOKS = sorted(name for name, spec in HOOKS.items() if spec.for_guests and spec.payload)


@pytest.mark.parametrize("hook", GUEST_HOOKS)
def test_it_has_a_class_for_every_payload_that_reads_every_field(hook: str) -> None:
    model = HOOKS[hook].payload
    assert model is not None
    source = (SOURCE / "payloads.ts").read_text()
    body = re.search(rf"export class {model.__name__}\b.*?\n}}\n", source, re.DOTALL)
    assert body is not None
    for field in model.model_fields:
        assert f'"{field}"' in body.group(0), f"{model.__name__}.{field}"
    assert model.__name__ in (SOURCE / "index.ts").read_text()


@pytest.mark.parametrize("capability", sorted(Capabilities.model_fields))
def test_it_has_a_namespace_for_every_capability(capability: str) -> None:
    assert f"export namespace {capability} {{" in (SOURCE / f"{capability}.ts").read_text()
    assert re.search(rf'export {{ {capability}\b.*from "./{capability}"', (SOURCE / "index.ts").read_text())


def test_its_host_calls_are_those_of_the_contract() -> None:
    wit = (LIBRARY.parent.parent / "wit" / "keelstone.wit").read_text()
    declared = set()
    for name, body in re.findall(r"interface (\w+) \{(.*?)\n\}", wit, re.DOTALL):
        declared |= {(name, function) for function in re.findall(r"^    ([a-z-]+): func\(", body, re.MULTILINE)}
    found = set()
    for path in SOURCE.glob("*.ts"):
        for name, function in re.findall(r'@external\("keelstone:plugin/(\w+)@1.1.0", "([a-z-]+)"\)', path.read_text()):
            found.add((name, function))
    assert found == declared
