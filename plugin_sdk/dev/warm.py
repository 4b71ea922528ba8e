"""Compilers that stay running between builds.

``asc`` spends most of a build warming up its own JavaScript; a process that has compiled a few times
does the same work in a third of the time, with the same flags and so to the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel.errors import KeelstoneError
from kernel.manifest import load_manifest
from plugin_sdk.toolchain.builder import build_plugin
from plugin_sdk.toolchain.fetch import Say, Tool, Toolchains

WARM = ("assemblyscript",)
"""Languages whose compiler is kept running."""

_SERVICE = """
import { createInterface } from "node:readline";
const asc = (await import(process.argv[1])).default;
for await (const line of createInterface({ input: process.stdin })) {
  const { arguments: given, cwd } = JSON.parse(line);
  let answer;
  try {
    process.chdir(cwd);
    const { error, stdout, stderr } = await asc.main(given);
    answer = { code: error ? 1 : 0, stdout: stdout.toString(), stderr: stderr.toString() };
    if (error && !answer.stderr) answer.stderr = String(error);
  } catch (error) {
    answer = { code: 1, stdout: "", stderr: String(error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\\n");
}
"""


class CompilerService:
    """One ``asc`` in a Node.js process of its own, started at the first build."""

    def __init__(self, tool: Tool) -> None:
        node, script = tool.command[0], Path(tool.command[-1])
        module = script.parent.parent / "dist" / "asc.js"
        self._command = [node, "--input-type=module", "--eval", _SERVICE, module.as_uri()]
        self._env = {**os.environ, **tool.env}
        self._process: subprocess.Popen[str] | None = None

    def run(self, arguments: tuple[str, ...], cwd: Path) -> subprocess.CompletedProcess[str] | None:
        """Compile; None if the service does not answer, so that the caller runs the compiler itself."""
        try:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(  # noqa: S603 - our own pinned tool, no shell
                    self._command,
                    env=self._env,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps({"arguments": arguments, "cwd": str(cwd.resolve())}) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            self.close()
            return None
        return subprocess.CompletedProcess(
            list(arguments), int(answer["code"]), str(answer["stdout"]), str(answer["stderr"])
        )

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


@dataclass(frozen=True, slots=True)
class _WarmTool(Tool):
    service: CompilerService | None = None

    def run(self, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        done = self.service.run(arguments, cwd) if self.service is not None and not env else None
        return Tool(self.command, self.env).run(*arguments, cwd=cwd, env=env) if done is None else done


class WarmToolchains(Toolchains):
    """Toolchains for many builds in a row. Close them when done."""

    def __init__(self, folder: Path | None = None, say: Say = lambda text: None) -> None:
        super().__init__(folder, say)
        self._kept: dict[str, Any] = {}

    def assemblyscript(self) -> Tool:
        """``asc`` as a service."""

        def make() -> _WarmTool:
            tool = super(WarmToolchains, self).assemblyscript()
            return _WarmTool(tool.command, tool.env, CompilerService(tool))

        kept: _WarmTool = self._keep("assemblyscript", make)
        return kept

    def warm_up(self, folder: Path) -> None:
        """Build once whatever the state, so that the next build finds its compiler warm; failures are the
        next build's to tell."""
        with contextlib.suppress(KeelstoneError):
            build = load_manifest(folder).build
            if build is not None and build.language in WARM:
                build_plugin(folder, self, force=True)

    def close(self) -> None:
        """End what was kept running."""
        kept = self._kept.pop("assemblyscript", None)
        if kept is not None and kept.service is not None:
            kept.service.close()

    def _keep(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]
