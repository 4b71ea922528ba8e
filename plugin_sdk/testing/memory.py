"""A Python guest without a component: its source run in this process, against the same host calls.

Nothing is built, so a test starts at once, a debugger stops in the author's lines and coverage counts
them. The sandbox's own properties (memory, isolation, deadlines of endless loops) are the component's
alone: run the tests on both hosts before publishing.
"""

from __future__ import annotations

import datetime as datetimes
import importlib
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kernel.errors import NotFound
from kernel.manifest import PluginManifest
from kernel.ports import GuestCall
from plugin_sdk.testing.control import ControlledClock, ControlledRandom
from plugin_sdk.toolchain import python
from plugin_sdk.toolchain.errors import BuildFailed

Ask = Callable[..., Any]


class MemoryGuest:
    """The guest of ``folder``; call it with a call and the host's door. Modules are fresh in every call,
    as a component's instances are, unless the manifest says ``isolation = "tenant"``."""

    def __init__(
        self,
        folder: Path,
        manifest: PluginManifest,
        clock: ControlledClock | None = None,
        chance: ControlledRandom | None = None,
    ) -> None:
        build = manifest.build
        if build is None or build.language != "python":
            raise NotFound(
                f"{manifest.id} is not written in Python: it runs as a component only.",
                plugin=manifest.id,
                fix='Use the host "sandbox".',
            )
        self._manifest = manifest
        self._source = folder / build.source
        self._capabilities = tuple(manifest.capabilities.asked())
        self._keep = manifest.isolation == "tenant"
        self._kept: dict[str, tuple[dict[str, types.ModuleType], Any]] = {}
        self._clock, self._chance = clock, chance
        self._turn = threading.Lock()

    def __call__(self, call: GuestCall, ask: Ask) -> tuple[bool, str]:
        """Run the call; whether the guest answers (or reports a failure), and its text."""
        doors = {name: _Door(name) for name in self._capabilities}
        for door in doors.values():
            door._ask = ask
        # The interpreter has one table of modules: calls take turns.
        with self._turn, self._modules(call.context.tenant, doors) as dispatcher:
            failure: type[Exception] = sys.modules["keelstone_guest.dispatch"].__dict__["GuestFailure"]
            try:
                return True, str(dispatcher.handle(call.hook, call.payload))
            except failure as error:
                return False, str(error)

    def check(self) -> None:
        """Import it once, as building does. Raises BuildFailed with its own traceback."""
        doors = {name: _Door(name) for name in self._capabilities}
        try:
            with self._turn, self._modules("", doors) as dispatcher:
                missing = sorted(set(self._manifest.hooks) - set(dispatcher.hooks))
        except Exception as error:
            trace = traceback.format_exception(error)
            raise BuildFailed(
                "Python does not import the plugin.",
                plugin=self._manifest.id,
                file=str(self._source),
                found="\n" + "".join(trace)[-4000:],
                fix="The last lines are Python's own: correct what they name.",
            ) from error
        if missing:
            raise BuildFailed(
                f"No function is marked @hook for {', '.join(missing)}.",
                plugin=self._manifest.id,
                file=str(self._source),
                fix="Mark one function for each hook under [hooks] with @hook from keelstone_guest.",
            )

    @contextmanager
    def _modules(self, tenant: str, doors: dict[str, _Door]) -> Iterator[Any]:
        """The guest's modules in their places, the test's own put aside; both as before afterwards."""
        own = {path.stem for path in self._source.parent.glob("*.py")}
        own |= {path.name for path in self._source.parent.iterdir() if (path / "__init__.py").is_file()}
        mine = {"keelstone_guest", "wit_world", *own}
        aside = {n: m for n, m in sys.modules.items() if n.partition(".")[0] in mine}
        for name in aside:
            del sys.modules[name]
        path = [str(self._source.parent), str(python.LIBRARY)]
        sys.path[:0] = path
        kept = self._kept.get(tenant) if self._keep else None
        try:
            if kept is None:
                dispatcher = self._load(doors, own)
            else:
                sys.modules.update(kept[0])
                dispatcher = kept[1]
                for name, door in doors.items():
                    module = sys.modules.get(f"keelstone_guest.{name}")
                    if module is not None:
                        module.__dict__["_host"] = door
            yield dispatcher
        finally:
            loaded = {n: m for n, m in sys.modules.items() if n.partition(".")[0] in mine}
            if self._keep:
                self._kept[tenant] = (loaded, dispatcher)
            for name in loaded:
                del sys.modules[name]
            sys.modules.update(aside)
            for item in path:
                sys.path.remove(item)

    def _load(self, doors: dict[str, _Door], own: set[str]) -> Any:
        world, imports = types.ModuleType("wit_world"), types.ModuleType("wit_world.imports")
        world.__path__, imports.__path__ = [], []
        sys.modules |= {"wit_world": world, "wit_world.imports": imports}
        for name, door in doors.items():
            sys.modules[f"wit_world.imports.{name}"] = door
        dispatch = importlib.import_module("keelstone_guest.dispatch")
        dispatch.__dict__["os"] = types.SimpleNamespace(urandom=self._urandom)
        plugin = importlib.import_module(self._source.stem)
        for name in own if self._clock is not None else ():
            if name in sys.modules:
                self._control(sys.modules[name])
        return dispatch.__dict__["Dispatcher"](plugin)

    def _urandom(self, size: int) -> bytes:
        import os

        controlled = None if self._chance is None else self._chance.bytes(size)
        return controlled or os.urandom(size)

    def _control(self, module: types.ModuleType) -> None:
        """Let the author's module see the controlled clock where it names the real one."""
        clock = self._clock
        assert clock is not None
        now_ns = clock.time_ns

        class Datetime(datetimes.datetime):
            @classmethod
            def now(cls, tz: datetimes.tzinfo | None = None) -> Datetime:
                return cls.fromtimestamp(now_ns() / 1e9, tz)

            @classmethod
            def utcnow(cls) -> Datetime:
                return cls.fromtimestamp(now_ns() / 1e9, datetimes.UTC).replace(tzinfo=None)

        times = {
            "time": lambda: clock.time_ns() / 1e9,
            "time_ns": clock.time_ns,
            "monotonic": lambda: clock.monotonic_ns() / 1e9,
            "monotonic_ns": clock.monotonic_ns,
            "perf_counter": lambda: clock.monotonic_ns() / 1e9,
        }
        replacements: list[tuple[Any, Any]] = [
            (time, types.SimpleNamespace(**{**vars(time), **times})),
            (datetimes, types.SimpleNamespace(**{**vars(datetimes), "datetime": Datetime})),
            (datetimes.datetime, Datetime),
            *((getattr(time, name), replacement) for name, replacement in times.items()),
        ]
        for name, value in list(vars(module).items()):
            for real, controlled in replacements:
                if value is real:
                    setattr(module, name, controlled)


class _Door(types.ModuleType):
    """Stands for the generated bindings of one interface."""

    _ask: Ask

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name[0].isupper():
            return _Kind()
        return lambda *arguments: self._call(name.replace("_", "-"), arguments)

    def _call(self, function: str, arguments: tuple[Any, ...]) -> Any:
        answer = self._ask(self.__name__, function, *map(_lowered, arguments))
        if type(answer).__name__ == "Err":
            raise _Failed(_lifted(answer.value))
        return _lifted(answer)


class _Kind:
    """A record's constructor, or an enumeration's cases."""

    def __call__(self, *arguments: Any, **members: Any) -> Any:
        return types.SimpleNamespace(**members)

    def __getattr__(self, name: str) -> str:
        return name.lower().replace("_", "-")


class _Failed(Exception):
    """As componentize-py raises the error side of a result."""

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.value = value


def _lowered(value: Any) -> Any:
    if isinstance(value, types.SimpleNamespace):
        return {name.replace("_", "-"): _lowered(member) for name, member in vars(value).items()}
    if isinstance(value, (list, tuple)):
        return [_lowered(item) for item in value]
    return value


def _lifted(value: Any) -> Any:
    if isinstance(value, dict):
        return types.SimpleNamespace(**{name.replace("-", "_"): _lifted(member) for name, member in value.items()})
    if isinstance(value, (list, tuple)):
        return [_lifted(item) for item in value]
    return value
