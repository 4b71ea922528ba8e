"""The identity token of the CI job that this runs in.

Sources: GitHub Docs, "OpenID Connect reference" (requesting the token by environment variables); GitLab Docs,
"ID token authentication" (``id_tokens``).
"""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from kernel.errors import BackendUnavailable, ConfigurationError
from marketplace.oidc.issuers import peek_audience

REQUEST_URL, REQUEST_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
GITLAB_TOKEN = "KEELSTONE_ID_TOKEN"  # noqa: S105 - a variable's name
SECONDS = 20.0


def token_here(audience: str, environment: Mapping[str, str]) -> str:
    """A token for ``audience``. Raises ConfigurationError if this is no job that has one, or BackendUnavailable."""
    if environment.get(REQUEST_URL) and environment.get(REQUEST_TOKEN):
        return _ask(environment[REQUEST_URL], environment[REQUEST_TOKEN], audience)
    token = environment.get(GITLAB_TOKEN)
    if not token:
        raise ConfigurationError(
            "There is no identity token of a CI job here.",
            expected=f"{REQUEST_URL} and {REQUEST_TOKEN} (GitHub Actions), or {GITLAB_TOKEN} (GitLab CI)",
            fix="On GitHub give the job `permissions: id-token: write`. On GitLab give it `id_tokens: "
            f"{GITLAB_TOKEN}: aud: {audience}`.",
        )
    if peek_audience(token) not in (audience, [audience]):
        raise ConfigurationError(
            f"The token in {GITLAB_TOKEN} is for another marketplace.",
            expected=f"aud: {audience}",
            found=str(peek_audience(token))[:200],
        )
    return token


def _ask(address: str, secret: str, audience: str) -> str:
    try:
        # The address has a query of its own already: it is kept.
        url = httpx.URL(address).copy_merge_params({"audience": audience})
        if url.scheme != "https":
            raise ConfigurationError(f"{REQUEST_URL} is no https address.", found=url.scheme)
        asked = {"Authorization": f"Bearer {secret}", "Accept": "application/json"}
        answer = httpx.get(url, headers=asked, timeout=SECONDS, follow_redirects=False)
        token = answer.json()["value"] if answer.status_code == 200 else None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BackendUnavailable(f"The CI service did not give an identity token: {error}.") from error
    except (ValueError, KeyError, TypeError):
        token = None
    if not isinstance(token, str) or not token:
        raise BackendUnavailable(
            "The CI service did not give an identity token.", fix="Does the job have `permissions: id-token: write`?"
        )
    return token
