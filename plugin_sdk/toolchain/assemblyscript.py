"""AssemblyScript: ``asc`` to a core module, then ``wasm-tools`` to a component of a few KiB.

Strings cross in UTF-16, AssemblyScript's own form. The runtime never frees: an instance serves one
call. The same sources and pins give the same bytes on every machine: paths are relative to the
plugin's folder, and nothing of time or place gets in.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from kernel.hookspecs import hook_spec
from kernel.manifest import PluginManifest
from plugin_sdk.sbom import Part
from plugin_sdk.toolchain.component import make_component
from plugin_sdk.toolchain.errors import BuildFailed, compiler_said
from plugin_sdk.toolchain.fetch import Toolchains
from plugin_sdk.toolchain.linked.npm import packages_of, pinned_package
from plugin_sdk.toolchain.world import SOURCE_MAP, VERSION, generation, without_custom

LIBRARY = Path(__file__).parent.parent / "languages" / "assemblyscript"
_FLAGS = ("--runtime", "stub", "-Osize", "--converge", "--noColors", "--sourceMap")
_REPORT = re.compile(r"^\s*└─ in (\S+)\((\d+),\d+\)", re.MULTILINE)


def compile_component(folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> bytes:
    """The component of the plugin in ``folder``. Raises BuildFailed or ToolchainUnavailable.

    ``stage`` lies inside ``folder`` and holds the composed world in ``wit/``.
    """
    assert manifest.build is not None
    asc = tools.assemblyscript()
    entry = stage / "entry.ts"
    entry.write_text(_entry(manifest, depth=len(stage.relative_to(folder).parts)), encoding="utf-8")
    name = entry.relative_to(folder).as_posix()
    core = stage / "core.wasm"
    compiled = asc.run(
        *(name, "-o", core.relative_to(folder).as_posix(), *_FLAGS),
        *("--path", _library(folder, stage, manifest), "--use", f"abort={name.removesuffix('.ts')}/onAbort"),
        cwd=folder,
    )
    if compiled.returncode or not core.is_file():
        raise _compiler_error(compiled.stderr or compiled.stdout, manifest, entry.name)
    core.write_bytes(without_custom(core.read_bytes(), "sourceMappingURL"))
    core.with_name("core.wasm.map").replace(stage / SOURCE_MAP)
    return make_component(core, stage, manifest, tools, encoding="utf16")


def linked_in(folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> Iterator[Part]:
    """The standard library, and the packages of which the source map knows code."""
    yield pinned_package("assemblyscript", "assemblyscript")
    sources = json.loads((stage / SOURCE_MAP).read_text(encoding="utf-8"))["sources"]
    # What begins with ~lib/ is the standard library or the guest library: no other path is searched.
    files = [(folder / name).resolve() for name in sources if not name.startswith("~lib/")]
    yield from packages_of(files, folder)


def _library(folder: Path, stage: Path, manifest: PluginManifest) -> str:
    """The guest library, importing the host's functions of the manifest's generation of the contract."""
    version = generation(manifest)
    if version == VERSION:
        return str(LIBRARY)
    target = stage / "library"
    shutil.copytree(LIBRARY, target)
    for path in target.rglob("*.ts"):
        source = path.read_text(encoding="utf-8")
        path.write_text(source.replace(f"@{VERSION}", f"@{version}"), encoding="utf-8")
    return target.relative_to(folder).as_posix()


def _entry(manifest: PluginManifest, depth: int) -> str:
    """The generated root module: dispatch by hook name, and what an abort does."""
    assert manifest.build is not None
    hooks = sorted(manifest.hooks)
    payloads = {h: spec.payload.__name__ for h in hooks if (spec := hook_spec(h)).payload is not None}
    used = sorted({*payloads.values(), *(["log"] if manifest.capabilities.log else [])})
    source = "../" * depth + manifest.build.source.removesuffix(".ts")
    lines = [
        'import { cabi_realloc, Json, JsonKind, result, text } from "keelstone/glue";',
        f'import {{ {", ".join(used)} }} from "keelstone";',
        f'import * as plugin from "{source}";',
        "export { cabi_realloc };",
        "",
        "export function handle(hook: usize, hookUnits: u32, payload: usize, payloadUnits: u32): usize {",
        "  const name = text(hook, hookUnits);",
        "  const data = Json.parse(text(payload, payloadUnits));",
        "  if (data === null || data.kind != JsonKind.Object) {",
        '    return result(false, "the payload is not a JSON object");',
        "  }",
        *(f'  if (name == "{h}") return plugin.{h}({payloads[h]}.from(data)).lower();' for h in hooks),
        '  return result(false, "this plugin does not implement " + name);',
        "}",
        "",
        "function onAbort(message: string | null, file: string | null, line: u32, column: u32): void {",
    ]
    if manifest.capabilities.log:
        lines += [
            '  const what = message === null ? "aborted" : message;',
            '  log.error(what + (file === null ? "" : " (" + file + ":" + line.toString() + ")"));',
        ]
    return "\n".join([*lines, "  unreachable();", "}", ""])


def _compiler_error(output: str, manifest: PluginManifest, entry: str) -> BuildFailed:
    assert manifest.build is not None
    place = _REPORT.search(output)
    fix = (
        f"Export one function for each hook under [hooks] from {manifest.build.source}, "
        f"with the hook's name: {', '.join(sorted(manifest.hooks))}."
    )
    missing = place and place.group(1).endswith(entry)
    return compiler_said("AssemblyScript does not compile.", output, place, manifest, fix if missing else None)
