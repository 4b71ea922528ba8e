"""Compiled components on disk: made once, sealed, and loaded only if the seal holds.

An artifact is native code and is trusted as such, so nothing is loaded that this platform did not
compile itself. Beside ``<component digest>-<engine fingerprint>.cwasm`` lies a seal: the artifact's
digest and facts, authenticated with a key of this folder (HMAC-SHA256). A file that was damaged, cut
short, renamed or brought from elsewhere fails the seal and is compiled again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wasmtime import WasmtimeError
from wasmtime.component import Component

from sandbox.children import bare_environment
from sandbox.compile import Job
from sandbox.engine import SandboxEngine, fingerprint
from sandbox.errors import ArtifactMissing, BadComponent, CompileLimit, SandboxError

COMPILE_SECONDS = 120
_KEY_FILE = "seal.key"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled component with what was learnt of it when it was compiled."""

    component: Component
    imports: tuple[str, ...]
    memories: tuple[tuple[int, int], ...]


class ArtifactStore:
    """The folder of artifacts. All methods block; several processes may share the folder."""

    def __init__(self, folder: Path, engine: SandboxEngine) -> None:
        self._folder = folder
        self._engine = engine
        self._fingerprint = fingerprint(engine.shape.fuel)

    def _path(self, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise BadComponent("A component is named by its SHA-256.", expected="64 hexadecimal digits", found=digest)
        return self._folder / f"{digest}-{self._fingerprint}.cwasm"

    def has(self, digest: str) -> bool:
        """Whether an artifact for this engine lies there; whether it is whole, :meth:`load` says."""
        path = self._path(digest)
        return path.is_file() and path.with_suffix(".seal").is_file()

    def make(self, digest: str, component: bytes, plugin: str | None = None) -> None:
        """Compile ``component`` in a process of its own. Raises SandboxError.

        Atomic: the artifact appears whole and sealed, or not at all.
        """
        found = hashlib.sha256(component).hexdigest()
        if found != digest:
            raise BadComponent(
                "The component is not the one that was announced.",
                plugin=plugin, expected=f"sha256 {digest}", found=f"sha256 {found}", fix="Fetch the package again.",
            )  # fmt: skip
        path = self._path(digest)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.chmod(0o700)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".compiling-") as scratch:
            source, output = Path(scratch, "component.wasm"), Path(scratch, "component.cwasm")
            source.write_bytes(component)
            facts = self._compile(source, output, plugin)
            seal = self._sealed(digest, _digest_of(output), facts)
            sealed = Path(scratch, "seal")
            sealed.write_text(json.dumps(seal))
            sealed.chmod(0o600)
            # The seal goes first: an artifact without its own seal is compiled again, never loaded.
            os.replace(sealed, path.with_suffix(".seal"))
            os.replace(output, path)

    def load(self, digest: str) -> Artifact:
        """The artifact, if its seal holds. Raises ArtifactMissing."""
        path = self._path(digest)
        try:
            seal = json.loads(path.with_suffix(".seal").read_text())
            self._check_owner(path)
            expected = self._sealed(digest, _digest_of(path), {k: seal[k] for k in ("imports", "memories")})
            if not hmac.compare_digest(str(seal["seal"]), expected["seal"]):
                raise ValueError("the seal does not hold")
            component = Component.deserialize_file(self._engine.engine, str(path))
        except (OSError, ValueError, KeyError, TypeError, WasmtimeError) as error:
            raise ArtifactMissing(
                "The compiled component is missing or damaged.",
                file=str(path),
                expected="a sealed artifact of this platform",
                found=f"{type(error).__name__}: {str(error)[:300]}",
                fix="It is compiled again from the installed package.",
            ) from error
        return Artifact(component, tuple(seal["imports"]), tuple((int(i), int(m)) for i, m in seal["memories"]))

    def delete(self, digest: str) -> None:
        """Remove the component's artifacts for every engine."""
        self._path(digest)
        for path in self._folder.glob(f"{digest}-*"):
            path.unlink(missing_ok=True)

    def _check_owner(self, path: Path) -> None:
        status = path.stat()
        if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
            raise ValueError("it belongs to another user")
        if status.st_mode & 0o022:
            raise ValueError("others may write it")

    def _key(self) -> bytes:
        path = self._folder / _KEY_FILE
        try:
            return path.read_bytes()
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Linking a whole file makes the first of several processes win, and nobody read half a key.
        scratch = self._folder / f".{secrets.token_hex(8)}"
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        try:
            os.link(scratch, path)
        except FileExistsError:
            pass
        finally:
            scratch.unlink()
        return path.read_bytes()

    def _sealed(self, digest: str, artifact: str, facts: dict[str, Any]) -> dict[str, Any]:
        body = {"component": digest, "engine": self._fingerprint, "artifact": artifact, **facts}
        text = json.dumps(body, sort_keys=True).encode()
        return body | {"seal": hmac.new(self._key(), text, hashlib.sha256).hexdigest()}

    def _compile(self, source: Path, output: Path, plugin: str | None) -> dict[str, Any]:
        job = Job(str(source), str(output), COMPILE_SECONDS, self._engine.shape.memory_mb, self._engine.shape.fuel)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "sandbox.compile"],
                input=json.dumps(asdict(job)).encode(),
                capture_output=True,
                timeout=COMPILE_SECONDS,
                env=bare_environment(),
                cwd=source.parent,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _too_costly(plugin, f"still at work after {COMPILE_SECONDS} s") from None
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
        facts = {key: value for line in lines for key, value in line.items()}
        if "error" in facts:
            raise BadComponent(plugin=plugin, **facts["error"])
        if done.returncode > 0:
            raise SandboxError(
                "The compiler process failed.",
                plugin=plugin,
                found=done.stderr.decode("utf-8", "replace")[-1_000:],
                fix="Check that the platform's own installation is whole.",
            )
        if "imports" not in facts:
            raise _too_costly(plugin, f"ended by signal {-done.returncode}")
        return {"imports": facts["imports"], "memories": facts.get("memories", [])}


def _too_costly(plugin: str | None, found: str) -> CompileLimit:
    return CompileLimit(
        "The component could not be compiled within the platform's limits.",
        plugin=plugin,
        expected=f"at most {COMPILE_SECONDS} s and 3 GiB",
        found=found,
        fix="Make the component smaller.",
    )


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
