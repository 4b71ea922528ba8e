"""What a started platform tells the person who started it: addresses, sign-ins, three things to try."""

from __future__ import annotations

import sys

import orjson

from api.bootstrap import Platform
from api.seed import known_sign_ins
from plugin_sdk.terminal import out

DOORS = (("REST", "/api/v1"), ("OpenAPI", "/openapi.json"), ("GraphQL", "/graphql"), ("Health", "/readyz"))
EXAMPLE = "keelstone-examples/email-guard"


def welcome(platform: Platform, url: str, json: bool) -> None:
    """Print it, as text or as one line of JSON."""
    people = known_sign_ins(platform)
    if json:
        ready = {
            "url": url,
            "home": str(platform.settings.home.resolve()),
            "sign_ins": [{"tenant": p.tenant, "email": p.email, "role": p.role} for p in people],
        }
        sys.stdout.write(orjson.dumps(ready).decode() + "\n")
        sys.stdout.flush()
        return
    out.print(f"\n[bold]Keelstone is ready[/] at {url}\n")
    for what, path in (
        ("REST", "/api/v1"),
        ("OpenAPI", "/openapi.json"),
        ("GraphQL", "/graphql"),
        ("Health", "/readyz"),
    ):
        out.print(f"  {what:<9}{url}{path}")
    if people:
        out.print(f"\nSign-ins (made for this data folder, kept in {platform.settings.home / 'credentials.json'}):")
        for person in people:
            out.print(f"  {person.tenant:<10}{person.email:<30}{person.password:<24}{person.role}", markup=False)
    if any(p.tenant == "acme" for p in people):
        out.print("\nTry, in a second terminal:")
        for line in (
            "keelstone marketplace search guard",
            f"keelstone marketplace install {EXAMPLE}",
            f"keelstone tenant enable acme {EXAMPLE} --grant all",
        ):
            out.print(f"  {prefix()}{line}", style="cyan")
    out.print("\nCtrl-C stops it; the next start finds everything as it was.\n")


def prefix() -> str:
    """How the command is called from the project's folder."""
    return ".venv/bin/" if sys.argv[0].endswith(".venv/bin/keelstone") else ""
