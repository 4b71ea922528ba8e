"""Watch, build, offer, install, activate: the loop of ``keelstone plugin dev``.

The platform's part is what any operator and admin would do over REST, in the same order; only the
first step, offering a package that nobody signed, is the development door's.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kernel.context import PLATFORM_TENANT
from kernel.errors import KeelstoneError, NotFound
from kernel.manifest import PluginManifest, load_manifest
from plugin_sdk.dev.happenings import Happening, Say, failure, places_of
from plugin_sdk.dev.source import source_component, source_folder
from plugin_sdk.dev.versions import development_number
from plugin_sdk.dev.watch import FolderWatch
from plugin_sdk.recordings import Recording, write_recording
from plugin_sdk.terminal import PlatformConnection, RemoteError
from plugin_sdk.toolchain import Toolchains, build_plugin
from plugin_sdk.toolchain.builder import BUILD, BuiltComponent, quick_component

Pack = Callable[[Path, bytes], bytes]
"""The archive of a plugin's folder with its component (the marketplace's own)."""
SLOW, TWICE = ("python",), ("zig",)
"""Languages whose source runs until its component is there, and those whose compiler has a much quicker way."""
LOOK_SECONDS = 0.1
SETTLE_SECONDS = 0.04
"""An editor saves in several steps; a build begins once the folder has been quiet for so long."""
WAIT_SECONDS = 0.9


class DevLoop:
    """One plugin's loop against one platform. ``say`` hears everything that happens, from several threads.

    ``grants`` decides on capabilities by name; those not named are granted. ``settings`` are the
    tenant's for the plugin (None leaves what is there). With ``quick`` a language whose component takes long
    to make is active as source first, or as a component made quickly.
    """

    def __init__(
        self,
        folder: Path,
        platform: PlatformConnection,
        pack: Pack,
        say: Say,
        *,
        tenant: str = "acme",
        tools: Toolchains | None = None,
        grants: Mapping[str, bool] | None = None,
        settings: Mapping[str, Any] | None = None,
        quick: bool = True,
    ) -> None:
        self.folder = folder.resolve()
        self.tenant = tenant
        self._platform = platform
        self._pack = pack
        self._say = say
        self._tools = tools or Toolchains()
        self._grants = dict(grants or {})
        self._settings = None if settings is None else dict(settings)
        self._number = 0
        self._active: tuple[bytes, ...] | None = None
        self._component = b""
        self._stopping = threading.Event()
        self._building = threading.Lock()
        self._quick = quick
        self._rounds = 0
        self._wanted = threading.Event()

    # ------------------------------------------------------------------ one round

    def round(self, since: float | None = None) -> bool:
        """Build and activate once; False if it failed (and was told). ``since`` is when the file was
        saved, in seconds of ``time.monotonic``."""
        with self._building:
            began = time.monotonic() if since is None else since
            try:
                self._round(began)
            except KeelstoneError as error:
                self._say(failure("activate" if isinstance(error, RemoteError) else "build", error, self.folder))
                return False
            return True

    def _round(self, began: float) -> None:
        manifest = load_manifest(self.folder)
        language = manifest.build.language if manifest.build else ""
        self._say(Happening("building", {"plugin": manifest.id, "language": language}))
        self._rounds += 1
        if self._quick and language in (*SLOW, *TWICE):
            (self._from_source if language in SLOW else self._quickly)(manifest, began)
            self._wanted.set()
            return
        started = time.monotonic()
        self._activate(manifest, self._built(build_plugin(self.folder, self._tools), started), began)

    def _from_source(self, manifest: PluginManifest, began: float) -> None:
        """Activate the source itself; its component follows."""
        started = time.monotonic()
        self._for_now(manifest, source_component(self.folder, manifest), started, began, source=True)

    def _quickly(self, manifest: PluginManifest, began: float) -> None:
        """Activate a component that was made in the shortest time; the one to publish follows."""
        started = time.monotonic()
        self._for_now(manifest, quick_component(self.folder, self._tools), started, began, source=False)

    def _for_now(
        self, manifest: PluginManifest, component: bytes, started: float, began: float, *, source: bool
    ) -> None:
        told = {"fresh": True, "size": len(component), "digest": hashlib.sha256(component).hexdigest()}
        asked = list(manifest.capabilities.asked())
        seconds = round(time.monotonic() - started, 3)
        self._say(Happening("built", {"seconds": seconds, **told, "imports": asked, "unused": [], "source": source}))
        self._activate(manifest, component, began)

    def _built(self, built: BuiltComponent, started: float) -> bytes:
        told = {"fresh": built.fresh, "size": built.size, "digest": built.digest}
        used = {"imports": list(built.imports), "unused": list(built.unused), "source": False}
        self._say(Happening("built", {"seconds": round(time.monotonic() - started, 3), **told, **used}))
        return built.path.read_bytes()

    def _activate(self, manifest: PluginManifest, component: bytes, began: float) -> None:
        """Offer, install, switch on: in the platform this is a release like any other."""
        digest = hashlib.sha256(component).hexdigest()
        key = (digest.encode(), *self._texts(manifest))
        if key == self._active:
            self._say(Happening("unchanged", {"seconds": round(time.monotonic() - began, 3)}))
            return
        self._component = component
        archive = self._pack(self.folder, component)
        if not self._number:
            self._number = self._highest(manifest.id)
        self._number += 1
        offer = self._platform.request(
            "POST",
            "/api/v1/development/offers",
            files={"package": ("plugin.keelstone", archive, "application/zip"), "number": (None, str(self._number))},
        )
        version = str(offer["version"])
        wanted = {"plugin": manifest.id, "version": f"={version}"}
        self._platform.request("POST", "/api/v1/plugins/install", json=wanted)
        path = f"/api/v1/tenants/{self.tenant}/activations/{manifest.id}"
        grants = {name: self._grants.get(name, True) for name in manifest.capabilities.asked()}
        body: dict[str, Any] = {"version": version, "grants": grants}
        if self._settings is not None:
            body["settings"] = self._settings
        active = self._platform.request("PUT", path, json=body, tenant=self.tenant)
        self._active = key
        self._say(
            Happening(
                "active",
                {
                    "plugin": manifest.id,
                    "version": version,
                    "tenant": self.tenant,
                    "host": "source" if source_folder(component) else "sandbox",
                    "grants": active["grants"],
                    "denied": active["denied"],
                    "settings": active["settings"],
                    "hooks": sorted(manifest.hooks),
                    "findings": offer["findings"],
                    "seconds": round(time.monotonic() - began, 3),
                },
            )
        )
        self._forget(manifest.id, keep=(version, active.get("previous")))

    def _refine(self) -> None:
        """In a thread: build what is active as source only, and put the component in its place."""
        while not self._stopping.is_set():
            if not self._wanted.wait(0.2):
                continue
            self._wanted.clear()
            rounds, began = self._rounds, time.monotonic()
            try:
                built = build_plugin(self.folder, self._tools)
                with self._building:
                    if rounds == self._rounds and not self._stopping.is_set():
                        self._activate(load_manifest(self.folder), self._built(built, began), began)
            except KeelstoneError as error:
                if rounds == self._rounds:
                    self._say(failure("build", error, self.folder))

    def _texts(self, manifest: PluginManifest) -> tuple[bytes, bytes]:
        schema = self.folder / manifest.settings if manifest.settings else None
        return (self.folder / "plugin.toml").read_bytes(), schema.read_bytes() if schema else b""

    def _highest(self, plugin: str) -> int:
        installed = self._platform.request("GET", "/api/v1/plugins")
        return max((development_number(str(p["version"])) for p in installed if p["id"] == plugin), default=0)

    def _forget(self, plugin: str, keep: tuple[Any, ...]) -> None:
        """Uninstall builds of before; the one just replaced stays for calls under way and for rollback."""
        for release in self._platform.request("GET", "/api/v1/plugins"):
            version = str(release["version"])
            if release["id"] == plugin and version not in keep and development_number(version):
                with contextlib.suppress(KeelstoneError):
                    self._platform.request("DELETE", f"/api/v1/plugins/{plugin}", params={"version": version})

    # ------------------------------------------------------------------ for as long as it takes

    def run(self) -> None:
        """Rounds for as long as nobody calls :meth:`stop`; the first at once."""
        watch = FolderWatch(self.folder)
        following = threading.Thread(target=self._follow, name="calls", daemon=True)
        following.start()
        refining = threading.Thread(target=self._refine, name="refine", daemon=True)
        refining.start()
        try:
            self.round()
            while not self._stopping.wait(LOOK_SECONDS):
                changed = watch.changes()
                if not changed:
                    continue
                saved = time.monotonic()
                while not self._stopping.wait(SETTLE_SECONDS) and (more := watch.changes()):
                    changed, saved = sorted({*changed, *more}), time.monotonic()
                self._say(Happening("changed", {"files": changed}))
                self.round(saved)
        finally:
            self._stopping.set()
            following.join(10)
            # A build under way writes into the folder: it is waited for, not left behind.
            refining.join(60)

    def stop(self) -> None:
        """Let :meth:`run` return."""
        self._stopping.set()

    def _follow(self) -> None:
        """Tell of every call of the plugin, as it happens."""
        after: int | None = None
        while not self._stopping.is_set():
            try:
                wait = 0.0 if after is None else WAIT_SECONDS
                params = {"after": -1 if after is None else after, "wait": wait}
                page = self._platform.request("GET", "/api/v1/development/calls", params=params)
            except KeelstoneError as error:
                if self._stopping.wait(1.0):
                    return
                self._say(failure("calls", error, self.folder))
                continue
            after = int(page["latest"])
            for call in page["items"]:
                self._say(Happening("call", self.placed(call)))

    def placed(self, call: dict[str, Any]) -> dict[str, Any]:
        """A call, with the author's lines if it failed."""
        problem = call.get("problem")
        if not problem:
            return call
        file = self._keep(call)
        logged = "\n".join(str(line["message"]) for line in call["logs"])
        places = places_of({**problem, "logged": logged}, self.folder, self._component)
        return {**call, "places": [place.describe() for place in places], "recording": file}

    def _keep(self, call: dict[str, Any]) -> str:
        """Write a failed call down for ``keelstone plugin replay``; the file's name."""
        file = self.folder / BUILD / "recordings" / f"{call['hook']}-{call['correlation_id']}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_recording(file, Recording.model_validate(call["recording"]))
        return str(file.relative_to(self.folder))

    # ------------------------------------------------------------------ trying it

    def send(self, hook: str, payload: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Call a hook of the platform with ``payload`` (a sample if none is given); what came of it.

        A failure is told and gives None.
        """
        from plugin_sdk.testing.samples import sample_payload

        try:
            given = sample_payload(hook, load_manifest(self.folder)) if payload is None else dict(payload)
            sent: dict[str, Any] = self._platform.request(
                "POST", "/api/v1/development/calls", json={"tenant": self.tenant, "hook": hook, "payload": given}
            )
        except KeelstoneError as error:
            self._say(failure("send", error, self.folder))
            return None
        self._say(Happening("sent", sent))
        return sent

    def test(self) -> bool:
        """Run the contract's checks and the plugin's own tests; whether all passed."""
        from plugin_sdk.testing.runner import run_tests

        try:
            report = run_tests(self.folder)
        except KeelstoneError as error:
            self._say(failure("test", error, self.folder))
            return False
        self._say(Happening("tested", report.describe()))
        return report.passed


def operator_of(platform: PlatformConnection) -> None:
    """Raise NotFound if the platform has no development door."""
    try:
        platform.request("GET", "/api/v1/development/calls", tenant=PLATFORM_TENANT)
    except RemoteError as error:
        if error.body.get("status") != 404:
            raise
        raise NotFound(
            "The platform that serves there takes no plugins from a folder.",
            fix="Start it with KEELSTONE_DEVELOPMENT=true, or let `keelstone plugin dev` start one of its own.",
        ) from error
