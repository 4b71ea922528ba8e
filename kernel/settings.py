"""Settings: environment variables with one prefix, ``KEELSTONE_``, each with a working default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from kernel.caps import Caps

HOME_NAME = ".keelstone"
PERSONAL_FIELDS = (
    *(
        "email",
        "e_mail",
        "mail",
        "name",
        "first_name",
        "last_name",
        "full_name",
        "given_name",
        "family_name",
        "surname",
    ),
    *("phone", "telephone", "mobile", "fax", "address", "surname", "street", "city", "zip", "postcode", "postal_code"),
    *("birthday", "birth_date", "date_of_birth", "dob", "gender", "ssn", "tax_id", "passport", "iban", "card_number"),
    *("ip", "ip_address", "latitude", "longitude", "username", "contact"),
)
"""Fields that are masked in recordings wherever they stand, unless an operator names others."""
Csv = Annotated[tuple[str, ...], NoDecode]


def find_home(start: Path) -> Path:
    """The nearest ``.keelstone`` in ``start`` or above it, as git finds its own; else one in ``start``."""
    for folder in (start, *start.parents):
        if (folder / HOME_NAME).is_dir():
            return folder / HOME_NAME
    return start / HOME_NAME


class Settings(BaseSettings):
    """Everything an operator can set. Lists are comma-separated."""

    model_config = SettingsConfigDict(env_prefix="KEELSTONE_", extra="ignore", frozen=True)

    home: Path = Field(
        default_factory=lambda: find_home(Path.cwd()),
        description="Data folder: database, blobs, keys, artifacts. Default: the nearest .keelstone in this folder "
        "or above it, or a new one here.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on. Loopback unless told otherwise.")
    port: int = Field(default=8700, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    url: str | None = Field(default=None, description="Address of the platform that the command line talks to.")
    token: SecretStr | None = Field(default=None, description="Access token or API key for the command line.")

    key_passphrase: SecretStr | None = Field(
        default=None,
        description="Passphrase of the marketplace's offline keys, for ceremonies that nobody types in.",
    )
    key_passphrase_file: Path | None = Field(default=None, description="File with that passphrase, in its first line.")

    database_url: str | None = Field(
        default=None, description="postgresql://user:password@host/db. Default: SQLite in the data folder."
    )
    bus_url: str | None = Field(
        default=None, description="redis://host:port/0 or kafka://host:port. Default: inside the process."
    )
    blob_url: str | None = Field(
        default=None, description="file:///folder that all processes share. Default: inside the data folder."
    )
    marketplace_url: str | None = Field(
        default=None, description="Address of a marketplace service. Default: the embedded one."
    )
    marketplace_search_url: str | None = Field(
        default=None,
        description="postgresql://user:password@host/db in which a marketplace served here keeps a copy of its "
        "catalogue, and from which it answers searches. The registry stays where it is. Default: the index in the "
        "registry's own file.",
    )
    plugins_disabled: Csv = Field(default=(), description="Ids of built-in plugins and extensions to leave out.")
    seed: bool = Field(default=False, description="Make the example tenants and publish the example plugins at start.")
    check_contracts: bool = Field(
        default=True,
        description="Try the hooks of every release before it is published, in the sandbox (the embedded "
        "marketplace, and `keelstone marketplace serve`).",
    )
    marketplace_rules: dict[str, Literal["enforced", "review", "monitored", "off"]] = Field(
        default={},
        description='Rules that releases must pass, with another mode than their own, as JSON: {"changelog": '
        '"enforced"}. `keelstone plugin rules` lists them.',
    )
    marketplace_severity: Literal["low", "medium", "high", "critical"] = Field(
        default="high",
        description="How grave a known weakness of something that a release was linked from must be for the release to "
        "wait for a reviewer, and for those who run it to be told.",
    )
    marketplace_witnesses: Csv = Field(
        default=(),
        description="Witnesses of the marketplace's transparency log, as `keelstone marketplace witness` prints them: "
        "whose signatures a marketplace takes in, and whose count for those who use one.",
    )
    marketplace_witnesses_needed: int = Field(
        default=0,
        ge=0,
        description="How many of KEELSTONE_MARKETPLACE_WITNESSES must have seen a release's entry in the log before "
        "it is installed.",
    )
    marketplace_reports: bool = Field(
        default=True,
        description="Tell the marketplace that a revocation was carried out here: how soon, whether the release was "
        "installed, and a name made from this platform's public keys. Nothing else is told.",
    )
    marketplace_figures: bool = Field(
        default=False,
        description="Tell the marketplace once a day, of each plugin version, how many guest calls there were, how "
        "many failed, how long they took in coarse steps, and a coarse number of tenants; signed, under a name made "
        "from this platform's public keys. It shows them only of five platforms or more together.",
    )
    marketplace_issuers: Csv = Field(
        default=("github=https://token.actions.githubusercontent.com", "gitlab=https://gitlab.com"),
        description="Whose CI jobs may release if a publisher lets them: github=https://... or gitlab=https://...; "
        "github+private= for one on your own network. Empty: nobody's.",
    )
    marketplace_issuers_authority: Path | None = Field(
        default=None, description="File of certificates (PEM) that vouch for those issuers beside the usual ones."
    )
    marketplace_owner_days: float = Field(
        default=7.0,
        ge=0,
        le=365,
        description="Days for which updates of a plugin's new owner wait, whoever allows them.",
    )
    marketplace_recovery_days: float = Field(
        default=30.0,
        ge=0,
        le=365,
        description="Days for which updates wait after the marketplace's operator put new keys in place of a "
        "publisher's lost ones.",
    )
    development: bool = Field(
        default=False,
        description="Take plugins straight from an author's folder, unsigned, and show their calls "
        "(`keelstone plugin dev`). Never where strangers' data is.",
    )

    master_key: SecretStr | None = Field(
        default=None,
        description="Base64 of 32 bytes that encrypt stored secrets. Default: made once in the data folder; "
        "processes that share a database must share it.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="json for machines, console for people; auto asks the terminal."
    )
    otlp_endpoint: str | None = Field(
        default=None, description="OTLP/HTTP collector for traces, e.g. http://127.0.0.1:4318."
    )

    request_timeout_ms: int = Field(
        default=30_000, ge=100, description="Deadline of one HTTP request, in milliseconds."
    )
    max_body_kb: int = Field(default=1_024, ge=1, description="Largest request body outside uploads, in KiB.")
    blocked_loop_ms: int = Field(
        default=100,
        ge=0,
        description="Milliseconds after which a plugin that holds up the event loop is named and counted as "
        "failing; 0 does not look.",
    )
    access_token_minutes: int = Field(default=15, ge=1, le=120, description="Life of an access token, in minutes.")
    refresh_token_days: int = Field(default=30, ge=1, description="Life of a refresh token, in days.")

    sandbox_max_time_ms: int = Field(default=5_000, ge=1, description="Cap on a guest call's time, in milliseconds.")
    sandbox_max_memory_mb: int = Field(default=128, ge=1, description="Cap on a guest's memory, in MiB.")
    sandbox_threads: int = Field(default=8, ge=1, le=64, description="Threads that run guest calls.")
    sandbox_slots: int = Field(default=200, ge=8, le=20_000, description="Instances that can be alive at once.")
    sandbox_lane: Literal["auto", "package"] = Field(
        default="auto",
        description="The way into wasmtime: auto takes the fast one where it knows the library; package always "
        "takes the wasmtime package's own.",
    )
    sandbox_in_place: bool = Field(
        default=True, description="Run guests that have been shown to be short on the event loop, without a thread."
    )
    sandbox_guest_process: bool = Field(
        default=True,
        description="Run guests that are not known yet, or that have flooded the host, in a process of their own.",
    )
    http_private_allow: Csv = Field(
        default=(), description="host:port pairs in private ranges that guests may reach. Default: none."
    )
    sandbox_caps: Caps = Field(
        default=Caps(),
        description='Caps on the limits of every call, as JSON: {"http_kb": 64, "concurrency": 4}. Names as in '
        "`[limits]` of plugin.toml, and `fuel`.",
    )
    plans: dict[str, Caps] = Field(
        default={},
        description='Caps for the tenants of a plan, as JSON: {"free": {"time_ms": 50, "ai_tokens": 0}}. '
        "Plans without caps need no mention.",
    )
    usage_days: int = Field(default=400, ge=1, description="Days that usage by the hour is kept, and then deleted.")
    recordings: Literal["failures", "off"] = Field(
        default="failures",
        description="Whether failed guest calls are kept for replay, if a tenant did not decide.",
    )
    recordings_per_plugin: int = Field(
        default=20, ge=1, le=1_000, description="Recordings kept of a plugin for a tenant; the oldest go."
    )
    recordings_max_kb: int = Field(default=512, ge=4, le=4_096, description="Largest recording, in KiB.")
    recordings_days: int = Field(default=14, ge=1, description="Days that recordings are kept, and then deleted.")
    personal_fields: Csv = Field(
        default=PERSONAL_FIELDS,
        description="Names of fields whose values are masked in recordings, beside those that are declared personal.",
    )
    quarantine_tenants: int = Field(
        default=0,
        ge=0,
        description="Withdraw a release from the platform once its breakers are open for that many tenants within "
        "KEELSTONE_QUARANTINE_MINUTES. 0: never by itself; 1 is refused, for one tenant's failures say too little.",
    )
    quarantine_minutes: int = Field(default=10, ge=1, description="See KEELSTONE_QUARANTINE_TENANTS.")
    max_package_mb: int = Field(default=32, ge=1, description="Largest plugin package, in MiB.")
    max_bundle_mb: int = Field(
        default=512, ge=1, le=4095, description="Largest bundle that is sent to the platform to install from, in MiB."
    )
    oci_user: str | None = Field(default=None, description="Name at an OCI registry that plugins are carried through.")
    oci_password: SecretStr | None = Field(default=None, description="Password or token that belongs to that name.")
    toolchains: Path | None = Field(
        default=None,
        description="Folder of the compilers that `keelstone plugin build` fetches. "
        "Default: `toolchains` in KEELSTONE_HOME if that is set, else the user's cache.",
    )

    @field_validator(
        "plugins_disabled",
        "http_private_allow",
        "personal_fields",
        "marketplace_witnesses",
        "marketplace_issuers",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("quarantine_tenants")
    @classmethod
    def _several(cls, value: int) -> int:
        if value == 1:
            raise ValueError("one tenant's failures are no reason to withdraw a release from all: use 0, or 2 and more")
        return value

    @field_validator("home", "toolchains")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        # Processes that we start work in folders of their own, where a relative path means another place.
        return value.expanduser().absolute() if value is not None else None

    @property
    def sqlalchemy_url(self) -> str:
        """The database address with the async driver named."""
        if self.database_url is None:
            return f"sqlite+aiosqlite:///{self.home.resolve() / 'keelstone.db'}"
        scheme, _, rest = self.database_url.partition("://")
        return f"{'postgresql+asyncpg' if scheme.startswith('postgres') else scheme}://{rest}"
