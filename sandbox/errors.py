"""What can go wrong with a guest, each with its own stable code.

Every error names the plugin and the hook, what was allowed (``expected``) and used (``found``) and
what its author or the operator can do (``fix``).
"""

from __future__ import annotations

from kernel.errors import GuestFailure


class SandboxError(GuestFailure):
    """Base of everything that the WebAssembly host refuses or reports."""

    code, status, title = "sandbox", 502, "A sandboxed plugin failed"


class GuestTrapped(SandboxError):
    """The guest executed something impossible (unreachable code, a bad address, a division by zero)."""

    code, title = "guest-trap", "A plugin crashed inside its sandbox"


class GuestTimeLimit(SandboxError):
    """The guest did not answer within its time, and was interrupted."""

    code, status, title = "guest-time-limit", 504, "A plugin took too long"


class GuestMemoryLimit(SandboxError):
    """The guest wanted more memory than it may have."""

    code, title = "guest-memory-limit", "A plugin wanted too much memory"


class GuestStackLimit(SandboxError):
    """The guest's calls nested too deeply."""

    code, title = "guest-stack-limit", "A plugin recursed too deeply"


class GuestInputTooLarge(SandboxError):
    """The payload is larger than the plugin takes."""

    code, status, title = "guest-input-limit", 413, "Too large for a plugin"


class GuestOutputTooLarge(SandboxError):
    """The guest answered, or handed to the host, more than it may."""

    code, title = "guest-output-limit", "A plugin answered too much"


class GuestOutputInvalid(SandboxError):
    """The guest's answer is not text of the agreed form."""

    code, title = "guest-output-invalid", "A plugin answered nonsense"


class GuestHostCallLimit(SandboxError):
    """The guest went on calling the host after its limit had been answered again and again."""

    code, title = "guest-host-call-limit", "A plugin called the host too often"


class GuestUnavailable(SandboxError):
    """The guest called something that exists only as a name here (files, sockets, sleeping)."""

    code, title = "guest-unavailable", "A plugin used what the sandbox does not have"


class GuestExit(SandboxError):
    """The guest ended itself instead of answering."""

    code, title = "guest-exit", "A plugin ended itself"


class GuestError(SandboxError):
    """The guest itself reported that it failed; the detail carries its words."""

    code, title = "guest-error", "A plugin reported a failure"


class GuestCancelled(SandboxError):
    """Nobody waits for the call any more, or the host is shutting down."""

    code, status, title = "guest-cancelled", 503, "The call was given up"


class GuestProcessEnded(SandboxError):
    """The process in which guests run at first ended with the call in it. Which of the calls in it was the cause
    cannot be told."""

    code, status, title = "guest-process-ended", 503, "A plugin's process ended"


class BadComponent(SandboxError):
    """The file is not a component of our contract, or cannot be compiled."""

    code, status, title = "bad-component", 422, "Not a usable component"


class ImportNotCovered(SandboxError):
    """The component imports something that no capability in its manifest covers."""

    code, status, title = "import-not-covered", 422, "A plugin asks for more than its manifest says"


class CompileLimit(SandboxError):
    """Compiling the component took more time or memory than the operator allows."""

    code, status, title = "compile-limit", 422, "A component is too costly to compile"


class ArtifactMissing(SandboxError):
    """The component has not been compiled for this engine, or its artifact was damaged: prepare it again."""

    code, status, title = "artifact-missing", 503, "A plugin is not prepared"


class ReplayDiverged(SandboxError):
    """A replayed guest called the host otherwise than in its recording."""

    code, status, title = "replay-diverged", 409, "The replay took another way"


class NeedsThread(SandboxError):
    """A call that runs in place wants something that must be waited for: it is repeated in a thread.
    Never leaves the sandbox."""

    code, status, title = "needs-thread", 503, "The call must run in a thread"


class GuestTableLimit(SandboxError):
    """The guest wanted more tables, or more elements in them, than it may have."""

    code, title = "guest-table-limit", "A plugin wanted too large tables"


class GuestInstanceLimit(SandboxError):
    """The guest consists of more core instances or memories than it may have."""

    code, title = "guest-instance-limit", "A plugin is made of too many parts"


class GuestFuelLimit(SandboxError):
    """The guest used up the fuel that its tenant's plan gives a call."""

    code, status, title = "guest-fuel-limit", 504, "A plugin worked too much"
