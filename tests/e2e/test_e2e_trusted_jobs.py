"""Releases from CI without a key: over a real marketplace by the commands, and updates that lose their provenance."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from marketplace.binding import prove_key
from marketplace.jobs import Job, sign_jobs
from marketplace.keys import SigningKey, generate_key
from marketplace.namespaces import make_key_set
from marketplace.registry import Registry
from tests.support.guests import guest, signed
from tests.support.issuer import LocalIssuer, local_issuer
from tests.support.served import serve
from tests.support.stage import Stage, copied

EXAMPLES = Path(__file__).parents[2] / "plugin_sdk" / "examples"
GUARD = "keelstone-examples/email-guard"


def test_a_ci_job_publishes_with_the_commands_and_nothing_secret(tmp_path: Path) -> None:
    with (
        local_issuer(tmp_path) as issuer,
        serve(
            tmp_path / "platform",
            KEELSTONE_MARKETPLACE_ISSUERS=f"github+private={issuer.url}",
            KEELSTONE_MARKETPLACE_ISSUERS_AUTHORITY=str(issuer.authority),
        ) as served,
    ):
        folder = served.folder / "email-guard"
        shutil.copytree(EXAMPLES / "email-guard", folder)
        for file in (folder / "plugin.toml", folder / "CHANGELOG.md"):
            file.write_text(file.read_text().replace("1.0.0", "1.1.0"))
        # The job's folder has no key of its own: what is signed here before is the list of jobs alone.
        words = ["plugin", "trust-job", "add", "keelstone-examples", "--issuer", issuer.url]
        words += ["--repository", "acme/guard", "--repository-id", "1001", "--owner-id", "2002"]
        words += ["--workflow", ".github/workflows/release.yml", "--environment", "release", "--plugin", "email-guard"]
        added = served.cli(*words)
        assert added["version"] == 1
        assert [job["repository"] for job in added["jobs"]] == ["acme/guard"]
        assert served.cli("plugin", "trust-job", "list", "keelstone-examples")["jobs"] == added["jobs"]
        hidden = list(served.home.rglob("keelstone-examples*.pem"))
        assert hidden
        for path in hidden:
            path.rename(path.with_suffix(".away"))
        served.environment |= {**issuer.environment(), "SSL_CERT_FILE": str(issuer.authority)}
        done = served.cli("plugin", "publish", "--from-job", str(folder), cwd=folder)
        assert done["receipt"]["state"] == "live"
        assert done["confirmed"]
        package = next((folder / "build").glob("*.keelstone"))
        verified = served.cli("plugin", "verify", str(package))
        links = [line.partition(":")[0] for line in verified["chain"]]
        assert "binding" in links
        assert "job" in links
        info = served.cli("marketplace", "info", GUARD)
        assert info["releases"][0]["build"]["commit"] == "a" * 40
        # Removed, the same job gets nothing more.
        for path in hidden:
            path.with_suffix(".away").rename(path)
        served.cli("plugin", "trust-job", "remove", "keelstone-examples", added["jobs"][0]["id"])
        refused = served.cli("plugin", "publish", "--from-job", str(folder), cwd=folder, code=3)
        assert refused["error"]["code"] == "job-not-trusted"


def registry_of(stage: Stage) -> Registry:
    assert stage.platform.registry is not None
    return stage.platform.registry


async def by_job(stage: Stage, issuer: LocalIssuer, folder: Path, plugin: str, version: str) -> None:
    """Publish as a CI job does."""
    registry, temporary = registry_of(stage), generate_key()
    token = issuer.token(registry.audience)
    proof = prove_key(temporary, token, plugin, registry.audience)
    await registry.bind_job(token, plugin, temporary.public.to_dict(), proof)
    made = signed(folder, temporary, guest(), plugin, version)
    await registry.publish(made.package.data, made.envelope)


async def let(stage: Stage, publisher: str, key: SigningKey, *jobs: Job) -> None:
    registry = registry_of(stage)
    await registry.let_jobs(sign_jobs(publisher, registry.reader.jobs.present(publisher), jobs, key))


@pytest.mark.parametrize("how", ["by hand", "from another repository"])
async def test_an_update_that_loses_its_provenance_waits_for_a_person(seeded: Path, tmp_path: Path, how: str) -> None:
    home = copied(seeded, tmp_path / "home")
    with local_issuer(tmp_path) as issuer:
        settings = {
            "marketplace_issuers": (f"github+private={issuer.url}",),
            "marketplace_issuers_authority": issuer.authority,
        }
        async with Stage(home, **settings) as stage:
            key, plugin = generate_key(), "builder/guard"
            job = Job(issuer.url, "acme/guard", "1001", "2002", ".github/workflows/release.yml", ("*",))
            await registry_of(stage).register_namespace(make_key_set("builder", [key]).document)
            await let(stage, "builder", key, job)
            await by_job(stage, issuer, tmp_path, plugin, "1.0.0")
            operator = await stage.client("platform")
            await operator.ok("POST", "/api/v1/plugins/install", json={"plugin": plugin, "version": "=1.0.0"})
            await stage.activate("acme", plugin)
            page = await operator.ok("GET", f"/api/v1/plugins/{plugin}")
            assert page["provenance"]["repository"] == "acme/guard"
            assert page["provenance"]["url"].endswith("/acme/guard/actions/runs/77")
            listed = await operator.graphql("{ plugins { id provenance { commit ref } } }")
            mine = next(each for each in listed["data"]["plugins"] if each["id"] == plugin)
            assert mine["provenance"] == {"commit": "a" * 40, "ref": "refs/tags/v1.0.0"}
            # Another run of the same job raises no alarm, though its key is another one.
            issuer.claims |= {"sha": "b" * 40, "run_id": "78"}
            await by_job(stage, issuer, tmp_path, plugin, "1.1.0")
            (moved,) = await operator.ok("POST", f"/api/v1/plugins/{plugin}/upgrade", json={"version": "1.1.0"})
            assert moved["after"] == "1.1.0", moved
            if how == "by hand":
                made = signed(tmp_path, key, guest(), plugin, "1.2.0")
                await registry_of(stage).publish(made.package.data, made.envelope)
            else:
                other = {"repository": "acme/copy", "repository_id": "1002"}
                issuer.claims |= other | {"job_workflow_ref": "acme/copy/.github/workflows/release.yml@refs/heads/main"}
                await let(stage, "builder", key, job, replace(job, repository="acme/copy", repository_id="1002"))
                await by_job(stage, issuer, tmp_path, plugin, "1.2.0")
            (stuck,) = await operator.ok("POST", f"/api/v1/plugins/{plugin}/upgrade", json={"version": "1.2.0"})
            assert stuck["after"] == "1.1.0"
            (held,) = await operator.ok("GET", "/api/v1/held-updates")
            assert [doubt["kind"] for doubt in held["doubts"]] == ["provenance"]
            assert "acme/guard" in held["doubts"][0]["words"]
            allowed = {"plugin": plugin, "version": "1.2.0", "reason": "We asked them."}
            await operator.ok("POST", "/api/v1/held-updates/allow", json=allowed)
            (moved,) = await operator.ok("POST", f"/api/v1/plugins/{plugin}/upgrade", json={"version": "1.2.0"})
            assert moved["after"] == "1.2.0"
