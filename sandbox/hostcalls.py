"""Every host call of a guest, in one file to be reviewed as a whole (which is why it is long). Deny by
default.

A capability that the tenant has not granted answers ``failure{code: "not-granted"}``: a guest may
degrade gracefully, nothing traps. Writes and events are only collected here; the caller saves them
together if the call succeeds. Functions run in the guest's thread; what is asynchronous runs on the
event loop that made the call, and never for longer than the call's deadline.

Beside it: sandbox.egress sends, sandbox.secrets puts values in and takes them out, sandbox.recording
keeps what was answered, sandbox.contract says which generation of the contract has which function.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import orjson

from kernel.errors import DeadlineExceeded, Forbidden, KeelstoneError, NotFound, Rejected, ValidationFailed
from kernel.events import NewEvent
from kernel.plain import flaw_in
from kernel.ports import (
    AiModels,
    AiRequest,
    Effects,
    GuestCall,
    GuestUsage,
    HostExchange,
    KvReads,
    KvValue,
    LogLine,
    Notice,
    Notifier,
    SecretSource,
    ServiceCalls,
    TenantPlans,
)
from kernel.service_calls import acting_as
from sandbox.abi import Err
from sandbox.calltime import LEAST_OWED, Errand, ThreadTime
from sandbox.contract import GENERATIONS
from sandbox.errors import (
    GuestCancelled,
    GuestHostCallLimit,
    GuestMemoryLimit,
    GuestTimeLimit,
    GuestTrapped,
    NeedsThread,
    SandboxError,
)
from sandbox.outgoing import EgressRefused, EgressRequest, Sender
from sandbox.policy import (
    FLOOD_GRACE,
    FLOOD_WASI,
    MAX_BATCH,
    MAX_KEY_CHARS,
    MAX_LISTED_KEYS,
    MAX_LOG_CHARS,
    MAX_RANDOM_BYTES,
    MAX_TTL,
    USUAL_PACE,
    WASI_CALLS,
    EffectiveLimits,
)
from sandbox.recording import LEAVES, Recorder, Replayer
from sandbox.schemas import problem_with
from sandbox.secrets import CallSecrets
from sandbox.wasi import NONDETERMINISTIC, WasiCalls, from_json, to_json

T = TypeVar("T")
EventSchemas = Callable[[str], Mapping[str, Any] | None]
"""The JSON Schema of an event type, or None if it is not registered."""
Interposer = Callable[[GuestCall, str, tuple[Any, ...]], HostExchange | None]
"""Stands before the host in an author's tests: sees each granted host call (``kv.get``,
``wasi:clocks/wall-clock.now``) first, and may answer it, or with a failure whose code is one of
ENDS end the call. Raises nothing; None lets the host answer."""

_log = logging.getLogger("keelstone.sandbox")
_NO_DEADLINE = float("inf")
_NOTHING: Mapping[str, int] = MappingProxyType({})


def _nobody(_port: type[Any]) -> None:
    return None


@dataclass(frozen=True, slots=True)
class HostServices:
    """What host calls reach outside.

    ``find`` gives the service published under a port of kernel.ports (SecretSource, AiModels, Notifier,
    ServiceCalls, TenantPlans), or None: it is asked when a guest asks, so plugins may publish at any time. Times are
    nanoseconds.
    """

    kv: KvReads | None = None
    egress: Sender | None = None
    event_schema: EventSchemas | None = None
    find: Callable[[type[Any]], Any] = _nobody
    now: Callable[[], int] = time.time_ns
    monotonic: Callable[[], int] = time.monotonic_ns
    random: Callable[[int], bytes] = os.urandom
    interposer: Interposer | None = None

    async def plan_of(self, tenant: str) -> str | None:
        """The plan that a tenant is on, as far as anybody knows."""
        plans = self.find(TenantPlans)
        return None if plans is None else await plans.plan(tenant)


def _check_plain(*values: Any) -> None:
    # Effects are saved in the caller's transaction: what a database refuses would take the caller's work with it.
    for value in values:
        flaw = flaw_in(value)
        if flaw is not None:
            raise Refused("invalid", flaw)


class Refused(Exception):
    """A host call's failure, told to the guest."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def _over(limit: str, used: int, allowed: int, unit: str) -> Refused:
    """A limit of the manifest, as capped by operator and plan, is reached."""
    name = limit.replace("_", "-")
    code = _LIMIT_CODES.get(limit, f"limit-{name}")
    return Refused(code, f"{used} {unit}, {allowed} allowed (limits.{limit})")


_LIMIT_CODES = {"kv_kb": "limit-kv-bytes", "http_kb": "limit-http", "output_kb": "limit-size", "input_kb": "limit-size"}
"""Failure codes that do not read like the limit in the manifest."""


@dataclass(frozen=True, slots=True)
class Door:
    """One host call: its name in recordings and usage, its implementation, whether that itself tells, more
    narrowly than by name, what was used, and what a replayed call still leaves behind."""

    name: str
    interface: str
    run: Callable[..., Any]
    says_more: bool
    keep: Callable[..., None] | None


class HostCalls:
    """The host as one call sees it, with what that call has used and wants saved.

    Made for every call, so cheap to make: what a call may never need is made when it is.
    ``in_place`` says that the guest runs on the event loop's own thread, where nothing can be waited for.
    """

    __slots__ = (
        "_effects", "_kv_usage", "_log_lines", "_loop", "_notices", "_recorder", "_replayer", "_secrets", "_services",
        "_stored", "_uses", "_waiting", "_wasi", "_wasi_calls", "ai_tokens", "call", "cancelled", "deadline", "fuel",
        "host_calls", "http_bytes", "in_place", "kv_bytes", "limits", "logs", "pace", "stderr", "stopped", "time",
    )  # fmt: skip

    def __init__(
        self,
        call: GuestCall,
        limits: EffectiveLimits,
        services: HostServices,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.call = call
        self.limits = limits
        self.deadline = _NO_DEADLINE
        self.in_place = False
        self.pace = USUAL_PACE
        self.time: ThreadTime | None = None
        self.cancelled = False
        self._waiting: concurrent.futures.Future[Any] | None = None
        self.stopped: BaseException | None = None
        self.fuel = 0
        self.host_calls = 0
        self.http_bytes = 0
        self.kv_bytes = 0
        self.ai_tokens = 0
        self.logs: list[LogLine] = []
        self.stderr: list[str] = []
        self._services = services
        self._loop = loop
        self._effects: Effects | None = None
        self._uses: dict[str, int] | None = None
        self._recorder: Recorder | None = None
        self._replayer = None if call.replay is None else Replayer(call.replay)
        self._wasi: WasiCalls | None = None
        self._wasi_calls = 0
        self._log_lines = 0
        self._stored: dict[str, KvValue | None] | None = None
        self._kv_usage: tuple[int, int] | None = None
        self._notices = 0
        self._secrets: CallSecrets | None = None

    # ------------------------------------------------------------------ what a call came to

    @property
    def effects(self) -> Effects:
        """What the call wants saved."""
        if self._effects is None:
            self._effects = Effects()
        return self._effects

    @property
    def recording(self) -> tuple[HostExchange, ...]:
        """Every host call so far as it was answered, clocks and random included."""
        return () if self._recorder is None else tuple(self._recorder.exchanges)

    def usage(self, wall_us: int, cpu_us: int, memory_bytes: int) -> GuestUsage:
        """What the call has used until now; the guest's times and memory are the caller's to know."""
        return GuestUsage(
            wall_us, memory_bytes, self.host_calls, self.http_bytes, cpu_us, self.kv_bytes, self.ai_tokens,
            _NOTHING if self._uses is None else self._uses, self.fuel,
        )  # fmt: skip

    def _use(self, what: str) -> None:
        if self._uses is None:
            self._uses = {}
        self._uses[what] = self._uses.get(what, 0) + 1

    def _record(self, function: str, arguments: tuple[Any, ...], answer: Any, failed: bool = False) -> None:
        if self._recorder is None:
            self._recorder = Recorder()
        self._recorder.add(function, arguments, answer, failed)

    # ------------------------------------------------------------------ the door

    def host(self, interface: str, function: str) -> Callable[..., Any]:
        """The implementation of a function of ``keelstone:plugin``, behind the gate.

        ``interface`` is the contract's name for it, with the generation: ``1.0/kv``.
        """
        adapt, door = _DOORS[interface, function]
        return partial(self._gate, adapt, door)

    def _gate(self, adapt: Adapter, door: Door, *arguments: Any) -> Any:
        try:
            if self._replayer is not None:
                answer = self._replayed(self._replayer, door, arguments)
            else:
                self._enter(door.interface)
                answer = self._run(door, arguments)
        except Refused as refused:
            if refused.code.startswith("limit-"):
                self._use(refused.code)
            failure = {"code": adapt(refused.code), "message": refused.message}
            self._record(door.name, arguments, failure, failed=True)
            return Err(failure)
        self._record(door.name, arguments, answer)
        return answer

    def _run(self, door: Door, arguments: tuple[Any, ...]) -> Any:
        if not door.says_more:
            self._use(door.name)
        if self._services.interposer is not None:
            found = self._interposed(door.name, arguments)
            if found is not None:
                return found.answer
        return door.run(self, *arguments)

    def _interposed(self, name: str, arguments: tuple[Any, ...]) -> HostExchange | None:
        """What a test answers in the host's place. Raises Refused, or the error that it ends the call with."""
        ask = self._services.interposer
        found = None if ask is None else ask(self.call, name, arguments)
        if found is not None and found.failed:
            code, message = found.answer["code"], found.answer["message"]
            if code in ENDS:
                raise ENDS[code](message, plugin=self.call.plugin, hook=self.call.hook, tenant=self.call.context.tenant)
            raise Refused(code, message)
        return found

    def _replayed(self, replayer: Replayer, door: Door, arguments: tuple[Any, ...]) -> Any:
        if not replayer.strict:
            self._enter(door.interface)
            if door.name not in LEAVES:
                return self._run(door, arguments)
            found = replayer.left(door.name, arguments)
            if found is None:
                raise Refused("unavailable", "a mirrored call does not leave the platform, and this was not recorded")
        else:
            self._count()
            found = replayer.next(door.name, arguments)
        self._use(door.name)
        if found.failed:
            raise Refused(found.answer["code"], found.answer["message"])
        if door.keep is not None:
            door.keep(self, found.answer, *arguments)
        return found.answer

    def wasi(self, name: str, function: str) -> Callable[..., Any]:
        """The implementation of a WASI function that our small WASI has."""
        self._wasi_calls += 1
        self._breathe(self._wasi_calls)
        if self._wasi_calls > WASI_CALLS:
            raise self._too_many(WASI_CALLS, self._wasi_calls, "Call clocks, random and print less often.")
        if self._wasi is None:
            self._wasi = WasiCalls(self._stdio, self._services.now, self._services.monotonic, self._services.random)
        run = self._wasi.function(name, function)
        return partial(self._observed, f"wasi:{name}.{function}", run) if name in NONDETERMINISTIC else run

    def _observed(self, name: str, run: Callable[..., Any], *arguments: Any) -> Any:
        replayer = self._replayer
        if replayer is not None and replayer.strict:
            recorded = replayer.next(name, arguments).answer
            answer = from_json(recorded)
        else:
            found = None if self._services.interposer is None else self._interposed(name, arguments)
            answer = run(*arguments) if found is None else from_json(found.answer)
            recorded = to_json(answer)
        self._record(name, arguments, recorded)
        return answer

    def _breathe(self, calls: int) -> None:
        """Let others have the interpreter: a flood of host calls would hold it for milliseconds at a time."""
        pace = self.pace
        if calls > pace.free and not calls % pace.every and not self.in_place:
            self._sleep(min(pace.seconds, self.remaining()))

    @property
    def flooded(self) -> bool:
        """Whether the call has called the host so often that its guest's next ones should go slowly."""
        return self.host_calls > self.limits.host_calls + FLOOD_GRACE or self._wasi_calls > FLOOD_WASI

    def _count(self) -> None:
        self.host_calls += 1
        self._breathe(self.host_calls)
        if self.cancelled:
            raise self._given_up()
        if self.host_calls > self.limits.host_calls + self.pace.grace:
            raise self._too_many(
                self.limits.host_calls,
                self.host_calls,
                "Stop when a host call answers `limit-host-calls`, or raise it.",
            )

    def _enter(self, interface: str) -> None:
        self._count()
        if self.host_calls > self.limits.host_calls:
            raise _over("host_calls", self.host_calls, self.limits.host_calls, "host calls")
        if not self._granted(interface):
            raise Refused("not-granted", f"this tenant has not granted {interface} to {self.call.plugin}")
        if self.remaining() <= 0 and not self.put_off():
            raise Refused("deadline", "the call's time is over")

    def _granted(self, interface: str) -> bool:
        asked = getattr(self.call.manifest.capabilities, interface, None)
        return asked is not None and interface in self.call.grants

    def _too_many(self, allowed: int, found: int, fix: str) -> GuestHostCallLimit:
        return GuestHostCallLimit(
            "The guest went on calling the host past its limit.",
            plugin=self.call.plugin,
            hook=self.call.hook,
            tenant=self.call.context.tenant,
            expected=f"at most {allowed}",
            found=found,
            fix=fix,
            extra={"limit": "host_calls", "used": found, "allowed": allowed},
        )

    def remaining(self) -> float:
        """Seconds until the call's deadline."""
        return max(0.0, self.deadline - time.monotonic())

    def put_off(self) -> float:
        """The deadline is reached: put it off by what the machine owes the call. Seconds left; 0 if it is over."""
        if self.time is None or self.cancelled:
            return 0.0
        owed = self.time.owed()
        self.time.given += owed
        self.deadline += owed
        left = min(self.remaining(), self.call.context.remaining())
        return left if owed and left >= LEAST_OWED else 0.0

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)
        if self.time is not None:
            self.time.waited += seconds

    def cancel(self) -> None:
        """Nobody waits for the call any more: end the host call that it holds, and it at its next one."""
        self.cancelled = True
        if self._waiting is not None:
            self._waiting.cancel()

    def _given_up(self) -> GuestCancelled:
        return GuestCancelled("The call was given up while it ran.", plugin=self.call.plugin, hook=self.call.hook)

    def _await(self, work: Coroutine[Any, Any, T], what: str) -> T:
        if self.in_place:
            # The loop that would do the work is the very thread that waits here.
            work.close()
            raise NeedsThread(f"{what} must be waited for.", plugin=self.call.plugin, hook=self.call.hook)
        if self._loop is None or self._loop.is_closed():
            work.close()
            raise Refused("unavailable", f"{what} cannot be reached")
        errand = Errand(work, self.time)
        self._waiting = future = asyncio.run_coroutine_threadsafe(errand.run(), self._loop)
        if self.cancelled:
            future.cancel()
        try:
            return self._result(future, errand)
        except TimeoutError:
            future.cancel()
            raise Refused("deadline", f"{what} did not answer within the call's time") from None
        except concurrent.futures.CancelledError:
            if self.cancelled:
                raise self._given_up() from None
            raise Refused("unavailable", f"{what} is shutting down") from None
        except (Refused, EgressRefused):
            raise
        except KeelstoneError as error:
            raise Refused(told_as(error), f"{what}: {error.detail}") from error
        except Exception as error:
            _log.warning("host call failed: %s for %s: %r", what, self.call.plugin, error)
            raise Refused("unavailable", f"{what} failed") from error
        finally:
            errand.end(self._loop)

    def _result(self, future: concurrent.futures.Future[T], errand: Errand[T]) -> T:
        """What the work comes to. Raises TimeoutError when the call's time is over and nothing is owed to it."""
        while True:
            try:
                return future.result(timeout=self.remaining())
            except TimeoutError:
                errand.count()
                if future.done() or not self.put_off():
                    raise

    # ------------------------------------------------------------------ log

    def log_write(self, level: Any, message: str) -> None:
        self._line(LogLine(level, message[:MAX_LOG_CHARS]))

    def _stdio(self, is_error: bool, line: str) -> None:
        if is_error:
            self.stderr = [*self.stderr[-19:], line[:MAX_LOG_CHARS]]
        if self._granted("log"):
            self._line(LogLine("error" if is_error else "info", line[:MAX_LOG_CHARS]))

    def _line(self, line: LogLine) -> None:
        self._log_lines += 1
        if self._log_lines <= self.limits.log_lines:
            self.logs.append(line)
        elif self._log_lines == self.limits.log_lines + 1:
            self.logs.append(LogLine("warn", f"further lines dropped (limits.log_lines is {self.limits.log_lines})"))

    # ------------------------------------------------------------------ config

    def config_get(self, key: str) -> str | None:
        value = self.call.settings.get(key)
        return None if value is None else orjson.dumps(value).decode()

    # ------------------------------------------------------------------ kv

    def kv_get(self, key: str) -> str | None:
        self._check_key(key)
        return self._value(key)

    def kv_get_many(self, keys: list[str]) -> list[str | None]:
        self._check_batch(keys)
        self._load(keys)
        return [self._value(key) for key in keys]

    def kv_set(self, key: str, value: str) -> None:
        self._put({key: value})

    def kv_set_many(self, entries: list[dict[str, str]]) -> None:
        self._put({entry["key"]: entry["value"] for entry in entries})

    def kv_set_for(self, key: str, value: str, seconds: int) -> None:
        if not 1 <= seconds <= MAX_TTL:
            raise Refused("invalid", f"a value lives 1 to {MAX_TTL} seconds")
        self._put({key: value})
        self.effects.kv_ttl[key] = seconds

    def kv_set_if(self, key: str, value: str, expected: str | None) -> bool:
        # What was read is compared again when the call's writes are saved: nobody can come between.
        if self.kv_get(key) != expected:
            return False
        self._put({key: value})
        return True

    def kv_delete(self, key: str) -> None:
        self._check_key(key)
        before = self._size(key)
        keys, used = self._usage()
        self._kv_usage = keys - (before > 0), used - before
        self.effects.kv_writes[key] = None
        self.effects.kv_ttl.pop(key, None)

    def _value(self, key: str) -> str | None:
        """The value as this call sees it. What the store had is noted, to be compared when writes are saved."""
        if key in self.effects.kv_writes:
            return self.effects.kv_writes[key]
        found = self._load((key,))[key]
        self.effects.kv_reads[key] = found.version if found else 0
        self.kv_bytes += len(found.value.encode()) if found else 0
        return found.value if found else None

    def _put(self, entries: Mapping[str, str]) -> None:
        """Write all of them, or none."""
        self._check_batch(entries)
        _check_plain(*entries.values())
        self._load(k for k in entries if k not in self.effects.kv_writes)
        keys, used = self._usage()
        written = 0
        for key, value in entries.items():
            before, after = self._size(key), len(key.encode()) + len(value.encode())
            keys, used, written = keys + (before == 0), used + after - before, written + after
        if keys > self.limits.kv_keys:
            raise _over("kv_keys", keys, self.limits.kv_keys, "keys")
        if used > self.limits.kv_bytes:
            raise _over("kv_kb", used, self.limits.kv_bytes, "bytes of state")
        self._kv_usage = keys, used
        self.kv_bytes += written
        for key, value in entries.items():
            self.effects.kv_writes[key] = value
            self.effects.kv_ttl.pop(key, None)

    def kv_list_keys(self, prefix: str, limit: int) -> list[str]:
        if prefix:
            self._check_key(prefix)
        limit = min(limit, MAX_LISTED_KEYS)
        mine = {k: v for k, v in self.effects.kv_writes.items() if k.startswith(prefix)}
        # Asking for as many more as this call has deleted keeps the answer full.
        gone = sum(v is None for v in mine.values())
        kv, tenant, plugin = self._kv()
        stored = self._await(kv.list_keys(tenant, plugin, prefix, limit + gone), _STORE)
        found = {k for k in stored if mine.get(k, "") is not None} | {k for k, v in mine.items() if v is not None}
        return sorted(found)[:limit]

    def _kv(self) -> tuple[KvReads, str, str]:
        if self._services.kv is None:
            raise Refused("unavailable", "there is no key-value store")
        return self._services.kv, self.call.context.tenant, self.call.plugin

    def _load(self, keys: Iterable[str]) -> dict[str, KvValue | None]:
        """What the store has under ``keys``, as it was when this call first looked."""
        if self._stored is None:
            seen = {} if self._replayer is None else self._replayer.stored
            self._stored = {key: None if value is None else KvValue(value, 1) for key, value in seen.items()}
        missing = [key for key in dict.fromkeys(keys) if key not in self._stored]
        if missing:
            kv, tenant, plugin = self._kv()
            if len(missing) == 1:
                self._stored[missing[0]] = self._await(kv.get(tenant, plugin, missing[0]), _STORE)
            else:
                found = self._await(kv.get_many(tenant, plugin, missing), _STORE)
                self._stored.update((key, found.get(key)) for key in missing)
        return self._stored

    def _size(self, key: str) -> int:
        """Bytes that the key takes now, as this call sees it; 0 if it is absent."""
        if key in self.effects.kv_writes:
            value = self.effects.kv_writes[key]
        else:
            found = self._load((key,))[key]
            value = found.value if found else None
        return 0 if value is None else len(key.encode()) + len(value.encode())

    def _usage(self) -> tuple[int, int]:
        if self._kv_usage is None:
            kv, tenant, plugin = self._kv()
            self._kv_usage = self._await(kv.usage(tenant, plugin), _STORE)
        return self._kv_usage

    def _check_key(self, key: str) -> None:
        if not key or len(key) > MAX_KEY_CHARS or not key.isprintable():
            raise Refused("invalid", f"a key has 1 to {MAX_KEY_CHARS} printable characters")

    def _check_batch(self, keys: Collection[str]) -> None:
        if len(keys) > MAX_BATCH:
            raise Refused("invalid", f"at most {MAX_BATCH} keys at once")
        for key in keys:
            self._check_key(key)

    # ------------------------------------------------------------------ http

    def http_send(self, request: dict[str, Any]) -> dict[str, Any]:
        capability = self.call.manifest.capabilities.http
        if self._services.egress is None or capability is None:
            raise Refused("unavailable", "there is no way out")
        secrets = self._call_secrets()
        try:
            answer = self._await(
                self._services.egress.send(
                    EgressRequest(
                        method=request["method"],
                        url=request["url"],
                        headers=tuple((h["name"], h["value"]) for h in request["headers"]),
                        body=(request["body"] or "").encode(),
                        secrets=secrets.sent if secrets else (),
                    ),
                    capability,
                    self.call.settings,
                    budget=self.limits.http - self.http_bytes,
                    seconds=self.remaining(),
                    count=self._count_http,
                    visit=lambda method, host: self._use(f"http.send {method} {host}"),
                ),
                "the network",
            )
        except EgressRefused as refused:
            if refused.code == "limit-http":
                raise _over("http_kb", self.http_bytes, self.limits.http, "bytes sent and received") from None
            raise Refused(refused.code, refused.message) from None
        mask = secrets.mask if secrets else str
        return {
            "status": answer.status,
            "headers": [{"name": mask(n), "value": mask(v)} for n, v in answer.headers],
            "body": mask(answer.body.decode("utf-8", "replace")),
        }

    def _count_http(self, size: int) -> None:
        self.http_bytes += size

    # ------------------------------------------------------------------ secrets

    def secrets_placeholder(self, name: str) -> str:
        capability = self.call.manifest.capabilities.secrets
        if capability is None or name not in capability.names:
            raise Refused("denied", f"{name[:100]} is not among capabilities.secrets.names")
        secrets = self._call_secrets()
        if secrets is None:
            raise Refused("unavailable", "nobody keeps secrets here")
        found = secrets.placeholders.get(name)
        if found is None:
            raise Refused("not-found", f"nobody has entered the secret {name} in this tenant")
        return found

    def _call_secrets(self) -> CallSecrets | None:
        """The plugin's secrets in this call; None where it may not use any, or nobody keeps them."""
        capability = self.call.manifest.capabilities.secrets
        if self._secrets is None and capability is not None and self._granted("secrets"):
            source = self._services.find(SecretSource)
            if source is None:
                return None
            values = self._await(source.secrets(self.call.context.tenant, self.call.plugin), "the secrets' store")
            self._secrets = CallSecrets(
                capability, values, self._services.random, lambda name: self._use(f"secrets.use {name}")
            )
        return self._secrets

    # ------------------------------------------------------------------ ai

    def ai_complete(self, prompt: dict[str, Any]) -> dict[str, Any]:
        capability, model = self.call.manifest.capabilities.ai, prompt["model"]
        if capability is None or model not in capability.models:
            raise Refused("denied", f"{model[:100]} is not among capabilities.ai.models")
        self._use(f"ai.complete {model}")
        self._check_size(prompt["text"], prompt["system"] or "")
        left = self.limits.ai_tokens - self.ai_tokens
        if left <= 0:
            raise _over("ai_tokens", self.ai_tokens, self.limits.ai_tokens, "tokens")
        wanted = min(prompt["max-tokens"] or left, left)
        request = AiRequest(self.call.context.tenant, self.call.plugin, model, prompt["text"], prompt["system"], wanted)
        answer = self._await(self._port(AiModels, "language models").complete(request), "the model")
        self.ai_tokens += answer.tokens
        self._check_answer(answer.text)
        return {"text": answer.text, "model": answer.model, "tokens": answer.tokens}

    # ------------------------------------------------------------------ notify

    def notify_send(self, notice: dict[str, str]) -> str:
        capability, channel = self.call.manifest.capabilities.notify, notice["channel"]
        if capability is None or channel not in capability.channels:
            raise Refused("denied", f"{channel[:100]} is not among capabilities.notify.channels")
        self._use(f"notify.send {channel}")
        self._check_size(notice["recipient"], notice["subject"], notice["body"])
        if self._notices >= self.limits.notices:
            raise _over("notices", self._notices + 1, self.limits.notices, "messages")
        self._notices += 1
        message = Notice(tenant=self.call.context.tenant, plugin=self.call.plugin, **notice)
        return self._await(self._port(Notifier, "notifications").notify(message), "the channel")

    # ------------------------------------------------------------------ services

    def services_call(self, plugin: str, method: str, payload: str) -> str:
        capability = self.call.manifest.capabilities.services
        if capability is None or method not in capability.calls.get(plugin, ()):
            raise Refused("denied", f"{plugin[:100]} {method[:100]} is not among capabilities.services.calls")
        self._use(f"services.call {plugin} {method}")
        self._check_size(payload)
        context = acting_as(self.call.context, self.call.plugin).within(self.remaining())
        work = self._port(ServiceCalls, "services").call(context, plugin, method, payload)
        answer = self._await(work, f"{plugin} {method}")
        self._check_answer(answer)
        return answer

    def _port(self, port: type[T], what: str) -> T:
        found: T | None = self._services.find(port)
        if found is None:
            raise Refused("unavailable", f"no installed plugin provides {what}")
        return found

    def _check_size(self, *texts: str) -> None:
        """What is handed to the host may be as large as an answer, together."""
        size = sum(len(text.encode()) for text in texts)
        if size > self.limits.output:
            raise _over("output_kb", size, self.limits.output, "bytes")

    def _check_answer(self, text: str) -> None:
        size = len(text.encode())
        if size > self.limits.input:
            raise _over("input_kb", size, self.limits.input, "bytes answered")

    # ------------------------------------------------------------------ clock and random

    def clock_now(self) -> int:
        return self._services.now() // 1_000_000

    def clock_monotonic(self) -> int:
        return self._services.monotonic()

    def random_number(self) -> int:
        return int.from_bytes(self._services.random(8), "little")

    def random_hex(self, size: int) -> str:
        if not 1 <= size <= MAX_RANDOM_BYTES:
            raise Refused("invalid", f"1 to {MAX_RANDOM_BYTES} bytes at once")
        return self._services.random(size).hex()

    # ------------------------------------------------------------------ events

    def events_emit(self, event_type: str, data: str) -> None:
        capability = self.call.manifest.capabilities.events
        if capability is None or event_type not in capability.emits:
            raise Refused("denied", f"{event_type} is not among capabilities.events.emits")
        if len(self.effects.events) >= self.limits.events:
            raise _over("events", len(self.effects.events) + 1, self.limits.events, "events")
        self._check_size(data)
        try:
            content = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise Refused("invalid", f"data is not JSON: {error}") from None
        if not isinstance(content, dict):
            raise Refused("invalid", "data is not a JSON object")
        _check_plain(content)
        problem = problem_with(content, self._schema(event_type))
        if problem:
            raise Refused("invalid", problem)
        self._use(f"events.emit {event_type}")
        self.effects.events.append(NewEvent(event_type, content))

    def _schema(self, event_type: str) -> Mapping[str, Any]:
        registered = self._services.event_schema(event_type) if self._services.event_schema else None
        if registered is not None:
            return registered
        return next(d.data for d in self.call.manifest.events.declares if d.type == event_type)

    # ------------------------------------------------------------------ the end

    def finish(self) -> None:
        """The guest has ended: log what it left without an end of line."""
        if self._wasi is not None:
            self._wasi.flush_log()


ENDS: Mapping[str, type[SandboxError]] = MappingProxyType(
    {error.code: error for error in (GuestTrapped, GuestTimeLimit, GuestMemoryLimit)}
)
"""What a test can let happen to a guest in the middle of a host call, by code."""

Adapter = Callable[[str], str]
"""What one generation of the contract is told otherwise than the newest: a failure's code."""


def _code_1_0(code: str) -> str:
    # 1.0 knows that there are limits, not which.
    return "limit" if code.startswith("limit-") else "unavailable" if code == "not-found" else code


ADAPTERS: dict[str, Adapter] = {"1.0": _code_1_0, "1.1": str}
"""By generation (see sandbox.contract.GENERATIONS)."""


_STORE = "the key-value store"


def told_as(error: KeelstoneError) -> str:
    """The failure code that stands for an error of the platform's own."""
    for kind, code in TOLD.items():
        if isinstance(error, kind):
            return code
    return "unavailable"


TOLD: Mapping[type[KeelstoneError], str] = {
    NotFound: "not-found",
    ValidationFailed: "invalid",
    Forbidden: "denied",
    Rejected: "denied",
    DeadlineExceeded: "deadline",
}
"""The failure codes of the platform's own errors; of any other it is ``unavailable``."""

_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("log", "write"): HostCalls.log_write,
    ("config", "get"): HostCalls.config_get,
    ("kv", "get"): HostCalls.kv_get,
    ("kv", "set"): HostCalls.kv_set,
    ("kv", "delete"): HostCalls.kv_delete,
    ("kv", "list-keys"): HostCalls.kv_list_keys,
    ("kv", "set-if"): HostCalls.kv_set_if,
    ("kv", "set-for"): HostCalls.kv_set_for,
    ("kv", "get-many"): HostCalls.kv_get_many,
    ("kv", "set-many"): HostCalls.kv_set_many,
    ("http", "send"): HostCalls.http_send,
    ("events", "emit"): HostCalls.events_emit,
    ("secrets", "placeholder"): HostCalls.secrets_placeholder,
    ("ai", "complete"): HostCalls.ai_complete,
    ("notify", "send"): HostCalls.notify_send,
    ("clock", "now"): HostCalls.clock_now,
    ("clock", "monotonic"): HostCalls.clock_monotonic,
    ("random", "number"): HostCalls.random_number,
    ("random", "hex"): HostCalls.random_hex,
    ("services", "call"): HostCalls.services_call,
}

_SAY_MORE = frozenset({"http", "events", "ai", "notify", "services"})
"""Interfaces whose functions tell themselves, more narrowly than by name, what was used."""


def _wrote(host: HostCalls, _answer: Any, key: str, value: str | None = None) -> None:
    host.effects.kv_writes[key] = value


def _wrote_for(host: HostCalls, _answer: Any, key: str, value: str, seconds: int) -> None:
    host.effects.kv_writes[key], host.effects.kv_ttl[key] = value, seconds


def _wrote_if(host: HostCalls, answer: Any, key: str, value: str, _expected: str | None) -> None:
    if answer:
        host.effects.kv_writes[key] = value


def _wrote_many(host: HostCalls, _answer: Any, entries: list[dict[str, str]]) -> None:
    host.effects.kv_writes.update((entry["key"], entry["value"]) for entry in entries)


def _emitted(host: HostCalls, _answer: Any, event_type: str, data: str) -> None:
    host.effects.events.append(NewEvent(event_type, orjson.loads(data)))


def _logged(host: HostCalls, _answer: Any, level: Any, message: str) -> None:
    host.log_write(level, message)


_KEPT: dict[tuple[str, str], Callable[..., None]] = {
    ("log", "write"): _logged,
    ("kv", "set"): _wrote,
    ("kv", "delete"): _wrote,
    ("kv", "set-for"): _wrote_for,
    ("kv", "set-if"): _wrote_if,
    ("kv", "set-many"): _wrote_many,
    ("events", "emit"): _emitted,
}
"""What a replayed call still leaves behind, so that its effects can be looked at."""

_DOORS: dict[tuple[str, str], tuple[Adapter, Door]] = {
    (f"{generation}/{interface}", function): (
        ADAPTERS[generation],
        Door(
            f"{interface}.{function}",
            interface,
            _FUNCTIONS[interface, function],
            interface in _SAY_MORE,
            _KEPT.get((interface, function)),
        ),
    )
    for generation, table in GENERATIONS.items()
    for interface, functions in table.items()
    for function in functions
}
"""Every host call of every generation, looked up once."""
