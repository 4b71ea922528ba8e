"""JavaScript and TypeScript: checked by ``tsc``, bundled by ``esbuild``, run by QuickJS in the component.

Plain JavaScript is checked as strictly as TypeScript, by its JSDoc comments. ``componentize-qjs``
freezes the engine with the bundle already loaded into a component of about 1.5 MB.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from kernel.manifest import PluginManifest
from plugin_sdk.sbom import Part
from plugin_sdk.toolchain.component import ADAPTER, lay_library, refuse_import
from plugin_sdk.toolchain.errors import BuildFailed, compiler_said
from plugin_sdk.toolchain.fetch import Toolchains
from plugin_sdk.toolchain.flatten import without_module_loader
from plugin_sdk.toolchain.linked.npm import packages_of, pinned_package
from plugin_sdk.toolchain.payloads import guest_hooks, hooks_named, payload_types
from plugin_sdk.toolchain.typed import javascript as typed
from plugin_sdk.toolchain.world import PACKAGE, WIT, generation, interface

LIBRARY = Path(__file__).parent.parent / "languages" / "javascript"
_OPTIONS = {
    "strict": True,
    "allowJs": True,
    "checkJs": True,
    "noEmit": True,
    "target": "es2023",
    "lib": ["es2023"],
    "module": "esnext",
    "moduleResolution": "bundler",
    "types": [],
}
_LINKED = "linked.json"
_RANDOM = "wasi:random/random@0.2.0"
_ERROR = re.compile(r"^(\S[^(\n]*)\((\d+),\d+\): error", re.MULTILINE)
_IMPORT = re.compile(rf'from\s*"({re.escape(PACKAGE)}/[^"]+)"')


def compile_component(folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> bytes:
    """The component of the plugin in ``folder``. Raises BuildFailed or ToolchainUnavailable."""
    assert manifest.build is not None
    tsc, esbuild, componentize = tools.javascript()
    hooks, logs = hooks_named(manifest.hooks), manifest.capabilities.log is not None
    library = lay_library(folder, LIBRARY, manifest, {"payloads.ts": typed.payloads(payload_types(), guest_hooks())})
    here, inside = stage.relative_to(folder).as_posix(), library.relative_to(folder).as_posix()
    up = "../" * len(stage.relative_to(folder).parts)
    source = up + manifest.build.source.removesuffix(".ts")
    (stage / "entry.ts").write_text(typed.entry(hooks, source, logs), encoding="utf-8")
    options = _OPTIONS | {"paths": {"keelstone": [f"{up}{inside}/index.ts"]}}
    files = ["entry.ts", f"{up}{inside}/contract.d.ts"]
    (stage / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "files": files}), encoding="utf-8")
    done = tsc.run("-p", f"{here}/tsconfig.json", "--pretty", "false", cwd=folder)
    if done.returncode:
        raise _compiler_error(done.stdout or done.stderr, manifest, f"{here}/entry.ts")
    bundle = stage / "bundle.js"
    done = esbuild.run(
        *(f"{here}/entry.ts", "--bundle", "--format=esm", "--platform=neutral", "--target=es2023"),
        *(f"--external:{PACKAGE}/*", "--external:wasi:*", f"--alias:keelstone=./{inside}/index.ts", "--charset=utf8"),
        *("--log-level=error", f"--outfile={here}/{bundle.name}", f"--metafile={here}/{_LINKED}"),
        cwd=folder,
    )
    if done.returncode:
        raise _compiler_error(done.stderr or done.stdout, manifest, f"{here}/entry.ts")
    allowed = {interface(name, generation(manifest)) for name in manifest.capabilities.asked()}
    for name in _IMPORT.findall(bundle.read_text(encoding="utf-8")):
        if name not in allowed:
            refuse_import(name, manifest)
    _add_random(stage / "wit")
    component = stage / "component.wasm"
    done = componentize.run(
        *("--sync", "--wit", "wit", "--world", "guest", "--js", bundle.name, "--output", component.name), cwd=stage
    )
    if done.returncode or not component.is_file():
        raise BuildFailed(
            "The script does not run while it is loaded.",
            plugin=manifest.id,
            file=manifest.build.source,
            found="\n" + (done.stderr or done.stdout).strip()[-4000:],
            fix="Outside functions, call nothing of the host: code there runs once, while building.",
        )
    return without_module_loader(component.read_bytes())


def linked_in(folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> Iterator[Part]:
    """The engine, and the packages of which something is in the bundle."""
    yield pinned_package("javascript", "componentize-qjs")
    said = json.loads((stage / _LINKED).read_text(encoding="utf-8"))
    (bundle,) = said["outputs"].values()
    files = [folder / name for name, each in bundle["inputs"].items() if each["bytesInOutput"]]
    yield from packages_of([file.resolve() for file in files], folder)


def _add_random(wit: Path) -> None:
    """Let the engine itself ask for WASI's random numbers, for a Math.random that is not frozen."""
    (wit / "deps").mkdir()
    shutil.copy(ADAPTER / "wit" / "deps" / "random.wit", wit / "deps" / "random.wit")
    world = wit / WIT.name
    text = world.read_text(encoding="utf-8")
    world.write_text(text.replace("world guest {", f"world guest {{\n    import {_RANDOM};", 1), encoding="utf-8")


def _compiler_error(output: str, manifest: PluginManifest, entry: str) -> BuildFailed:
    assert manifest.build is not None
    place = next((match for match in _ERROR.finditer(output) if match.group(1) != entry), None)
    fix = (
        f"Export one function for each hook under [hooks] from {manifest.build.source}, with the hook's name "
        "and the types that Hooks in build/keelstone/payloads.ts declares."
    )
    return compiler_said("The types do not fit.", output, place, manifest, None if place else fix)
