/** The host refused or failed a call; `code` is stable (keelstone.wit lists them). */
export class HostError extends Error {
  constructor(
    readonly call: string,
    readonly code: string,
    readonly reason: string,
  ) {
    super(`${call}: ${code}: ${reason}`);
    this.name = "HostError";
  }
}

/** The host's answer; its refusals become HostError. */
export function asked<T>(call: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    const failure = (error as { payload?: unknown } | null)?.payload ?? error;
    const { code, message } = (failure ?? {}) as { code?: unknown; message?: unknown };
    if (typeof code === "string") throw new HostError(call, code, String(message));
    throw error;
  }
}
