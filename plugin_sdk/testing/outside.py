"""What a guest reaches through the platform besides its own state: secrets, models, messages, services.

Everything answers something unless a test says otherwise, and remembers what it was asked. For
refusals there is chaos: ``guest.chaos("fail ai.complete unavailable")``.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from kernel.context import Context
from kernel.errors import KeelstoneError, ServiceMissing
from kernel.manifest import PluginManifest
from kernel.ports import AiAnswer, AiModels, AiRequest, Notice, Notifier, SecretSource, ServiceCalls


class FakeSecrets:
    """Secrets as an admin would have entered them: every one that the manifest asks for, unless taken out."""

    def __init__(self, manifest: PluginManifest) -> None:
        capability = manifest.capabilities.secrets
        self.values = {name: f"value-of-{name}" for name in (capability.names if capability else ())}

    async def secrets(self, tenant: str, plugin: str) -> Mapping[str, str]:
        return dict(self.values)


class FakeModels:
    """Language models that say what they are told to: the ``answers`` in turn, then always ``otherwise``."""

    def __init__(self) -> None:
        self.requests: list[AiRequest] = []
        self.answers: deque[str] = deque()
        self.otherwise = "An answer."

    async def complete(self, request: AiRequest) -> AiAnswer:
        self.requests.append(request)
        text = self.answers.popleft() if self.answers else self.otherwise
        words = len(request.text.split()) + len((request.system or "").split()) + len(text.split())
        return AiAnswer(text, request.model, words)


class FakeNotifier:
    """Accepts every message and keeps it in ``sent``."""

    def __init__(self) -> None:
        self.sent: list[Notice] = []

    async def notify(self, notice: Notice) -> str:
        self.sent.append(notice)
        return f"notice-{len(self.sent)}"


class FakeServices:
    """Other plugins' methods: those that ``answers`` has, by plugin and method. An error is raised."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.answers: dict[tuple[str, str], Any] = {}

    async def call(self, context: Context, plugin: str, method: str, payload: str) -> str:
        self.calls.append((plugin, method, json.loads(payload)))
        if (plugin, method) not in self.answers:
            raise ServiceMissing(f"The test has no answer for {plugin} {method}.", found=f"{plugin} {method}")
        answer = self.answers[plugin, method]
        if isinstance(answer, KeelstoneError):
            raise answer
        return json.dumps(answer)


class Outside:
    """All of them, as the sandbox looks for them."""

    def __init__(self, manifest: PluginManifest) -> None:
        self.secrets = FakeSecrets(manifest)
        self.models = FakeModels()
        self.notifier = FakeNotifier()
        self.services = FakeServices()

    def find(self, port: type[Any]) -> Any:
        """The fake of a port, or None."""
        fakes: dict[type[Any], Any] = {
            SecretSource: self.secrets,
            AiModels: self.models,
            Notifier: self.notifier,
            ServiceCalls: self.services,
        }
        return fakes.get(port)
