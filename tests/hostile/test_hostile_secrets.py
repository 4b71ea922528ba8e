"""Guests that want a secret: what stands for it is worth nothing in another call, tenant or plugin."""

from __future__ import annotations

from typing import Any

from kernel.ports import SecretSource
from tests.hostile.conftest import Opener
from tests.hostile.corpus import GRANTS, manifest_of
from tests.hostile.probes import sender
from tests.hostile.test_hostile_network import Outside, outside, replying, serving, wish
from tests.hostile.text import compiled, text

__all__ = ["outside"]

WHY = "needed by the tests"
VALUES = {"acme": "acme-treasure-0001", "globex": "globex-treasure-0002"}

_ASKER = """(import "keelstone:plugin/types@1.1.0" (instance $types11
    (type $f (record (field "code" string) (field "message" string))) (export "failure" (type (eq $f)))))
  (alias export $types11 "failure" (type $failure11))
  (import "keelstone:plugin/secrets@1.1.0" (instance $secrets
    (alias outer 1 $failure11 (type $f)) (export "failure" (type $g (eq $f)))
    (export "placeholder" (func (param "name" string) (result (result string (error $g)))))))"""


def asker() -> str:
    """Answers what stands for the secret that its payload names, or the failure's code."""
    return text(
        "(call $ask (local.get $text) (local.get $len) (i32.const 128))"
        "(call $answer (i32.load (i32.const 132)) (i32.load (i32.const 136)))",
        around=_ASKER,
        lowered='(core func $ask (canon lower (func $secrets "placeholder")'
        ' (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))',
        more=[("ask", "(param i32 i32 i32)")],
    )


class Vault:
    """Each tenant's secret of any plugin."""

    async def secrets(self, tenant: str, plugin: str) -> dict[str, str]:
        return {"crm": VALUES[tenant]}


def find(port: type[Any]) -> Any:
    return Vault() if port is SecretSource else None


async def test_what_stands_for_a_secret_is_only_text_in_any_other_call(doors: Opener, outside: Outside) -> None:
    async with serving(replying(body=b"fine")) as (port, heads):
        outside.answers["api.example.com"] = [["127.0.0.1"]]
        host = f"api.example.com:{port}"
        manifest = manifest_of(
            capabilities={
                "http": {"why": WHY, "hosts": [host], "methods": ["GET"]},
                "secrets": {"why": WHY, "names": {"crm": {"why": WHY, "hosts": [host]}}},
            },
            events={},
            limits={"time_ms": 20_000},
        )
        options: dict[str, Any] = {"manifest": manifest, "grants": GRANTS | {"secrets"}}
        async with doors(http_private_allow=host, find=find) as door:
            marks = [(await door.run(compiled(asker()), "crm", tenant="acme", **options)).output for _ in range(3)]
            assert len(set(marks)) == 3
            assert (await door.run(compiled(asker()), "other", tenant="acme", **options)).output == "denied"
            ungranted = await door.run(compiled(asker()), "crm", manifest=manifest, grants=GRANTS)
            assert ungranted.output == "not-granted"
            guesses = [*marks, "{{secret:crm}}", "{{secret:crm:" + "0" * 32 + "}}", "crm"]
            for tenant in VALUES:
                for guess in guesses:
                    payload = wish(f"http://{host}/", "authorization", f"Bearer {guess}")
                    assert (await door.run(compiled(sender()), payload, tenant=tenant, **options)).output == "fine"
        assert len(heads) == len(VALUES) * len(guesses)
        assert not any(value.encode() in head for value in VALUES.values() for head in heads)


async def test_a_secret_that_comes_back_is_not_read(doors: Opener, outside: Outside) -> None:
    body = f"you are {VALUES['acme']}".encode()
    async with serving(replying(body=body)) as (port, _):
        outside.answers["api.example.com"] = [["127.0.0.1"]]
        host = f"api.example.com:{port}"
        manifest = manifest_of(
            capabilities={
                "http": {"why": WHY, "hosts": [host], "methods": ["GET"]},
                "secrets": {"why": WHY, "names": {"crm": {"why": WHY, "hosts": [host]}}},
            },
            events={},
            limits={"time_ms": 20_000},
        )
        async with doors(http_private_allow=host, find=find) as door:
            result = await door.run(
                compiled(sender()), wish(f"http://{host}/"), manifest=manifest, grants=GRANTS | {"secrets"}
            )
        assert result.output == "you are [secret crm]"
        assert VALUES["acme"] not in repr(result)
