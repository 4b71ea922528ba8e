/** Capability `clock`: time. */
import * as host from "keelstone:plugin/clock@1.1.0";
import { asked } from "./host";

/** Milliseconds since 1970-01-01T00:00Z. */
export function now(): number {
  return Number(asked("clock.now", () => host.now()));
}

/** Nanoseconds from some moment on, which never go back; a number has microseconds of them for sure. */
export function monotonic(): number {
  return Number(asked("clock.monotonic", () => host.monotonic()));
}
