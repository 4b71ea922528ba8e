"""A ``rustc`` that compiles to WebAssembly.

rustup's toolchains are in no package registry, so the target's standard library is the author's to
install, unless this is the Debian release whose own packages are pinned here: those are unpacked beside
the other compilers, and nobody's rights are needed for it.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from plugin_sdk.toolchain.errors import ToolchainUnavailable
from plugin_sdk.toolchain.fetch import PINS, Tool, Toolchains

RUST_TARGET = "wasm32-unknown-unknown"
_WHAT = "The Rust compiler"


def find_rustc(tools: Toolchains) -> Tool:
    """The machine's ``rustc`` if it has the target, else Debian's. Raises ToolchainUnavailable."""
    for name in ("rustc", "/usr/bin/rustc"):
        found = shutil.which(name)
        if found and (tool := rust_for_wasm(Path(found))):
            return tool
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb") and _debian_machine() == "bookworm x86_64"):
        raise _no_rust()
    pins = PINS / "rust-debian.txt"
    folder = tools.fetched("rust", pins, "the Rust compiler", lambda target: _unpack(tools, pins, target))
    tool = rust_for_wasm(folder / "usr" / "bin" / "rustc", folder / "usr" / "lib" / "x86_64-linux-gnu")
    if tool is None:
        raise _no_rust()
    return tool


def _unpack(tools: Toolchains, pins: Path, target: Path) -> None:
    apt = Tool(("apt-get", "--quiet", "-o", "APT::Sandbox::User="), {})
    for line in pins.read_text().splitlines():
        package, sha256 = line.split()
        done = apt.run("download", package, cwd=target)
        if done.returncode:  # no lists yet, or old ones: a copy of our own needs nobody's rights
            apt = Tool((*apt.command, "-o", f"Dir::State={target}/apt", "-o", f"Dir::Cache={target}/apt"), {})
            for name in ("lists", "archives"):
                (target / "apt" / name / "partial").mkdir(parents=True, exist_ok=True)
            (target / "apt" / "status").touch()
            apt.run("update", cwd=target)
            done = apt.run("download", package, cwd=target)
        tools.check(done, _WHAT, "Debian's packages")
        (archive,) = target.glob("*.deb")
        if hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
            raise ToolchainUnavailable(f"{package} is not the package that was pinned.", file=str(archive))
        tools.check(Tool(("dpkg-deb",), {}).run("-x", archive.name, ".", cwd=target), _WHAT, "its archive")
        archive.unlink()
    for unused in ("apt", "usr/lib/rustlib/wasm32-wasi", "usr/share"):
        shutil.rmtree(target / unused, ignore_errors=True)


def rust_for_wasm(rustc: Path, libraries: Path | None = None) -> Tool | None:
    """That ``rustc``, if it starts, has the target's standard library and a linker for it."""
    env = {"LD_LIBRARY_PATH": str(libraries)} if libraries else {}
    try:
        said = Tool((str(rustc),), env).run("--print", "sysroot", cwd=rustc.parent)
    except OSError:
        return None
    sysroot = Path(said.stdout.strip())
    if said.returncode or not (sysroot / "lib" / "rustlib" / RUST_TARGET / "lib").is_dir():
        return None
    bundled = list(sysroot.glob("lib/rustlib/*/bin/rust-lld*"))
    beside = [path for name in ("wasm-ld", "wasm-ld-14") if (path := rustc.parent / name).exists()]
    linker = shutil.which("rust-lld") or shutil.which("wasm-ld") or next((str(path) for path in beside), None)
    if bundled:
        return Tool((str(rustc), "--target", RUST_TARGET), env)
    if linker is None:
        return None
    return Tool((str(rustc), "--target", RUST_TARGET, "-C", f"linker={linker}"), env)


def _no_rust() -> ToolchainUnavailable:
    return ToolchainUnavailable(
        f"There is no Rust compiler with the standard library for {RUST_TARGET} here.",
        expected=f"rustc with the target {RUST_TARGET}",
        fix=f"Run `rustup target add {RUST_TARGET}`, or on Debian `apt install rustc libstd-rust-dev-wasm32 lld`.",
    )


def _debian_machine() -> str:
    """Release and processor of a Debian machine, e.g. ``bookworm x86_64``; the pins are for one of them."""
    import platform

    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return ""
    return f"{release.get('VERSION_CODENAME', '')} {platform.machine()}" if release.get("ID") == "debian" else ""
