import type { JsonObject } from "./json";

/** Thrown by a filter to refuse the payload; `reason` is shown to the caller. */
export class Reject extends Error {
  constructor(readonly reason: string) {
    super(reason);
    this.name = "Reject";
  }
}

/** A decide hook's answer. */
export interface Decision {
  readonly allow: boolean;
  readonly reason: string;
}

export function allow(reason: string): Decision {
  return { allow: true, reason };
}

export function deny(reason: string): Decision {
  return { allow: false, reason };
}

/** For the generated entry: run `hook` and give its answer as the reply of its kind. */
export function replied(kind: "filter" | "decide" | "observe", hook: () => unknown): JsonObject {
  let answer: unknown;
  try {
    answer = hook();
  } catch (error) {
    if (kind === "filter" && error instanceof Reject) return { reject: { reason: error.reason } };
    throw error;
  }
  if (answer instanceof Promise) throw new TypeError("hooks are not async: a guest has nothing to wait for");
  if (kind === "observe") return { done: true };
  if (answer === undefined || answer === null) return {};
  return { [kind === "filter" ? "payload" : "answer"]: answer as JsonObject };
}
