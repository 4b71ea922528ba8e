/** Capability `clock`: what time it is. */
import { area, failureAt } from "./abi";
import { insist, Outcome } from "./outcome";

// @ts-ignore: decorator
@external("keelstone:plugin/clock@1.1.0", "now")
declare function hostNow(out: usize): void;

// @ts-ignore: decorator
@external("keelstone:plugin/clock@1.1.0", "monotonic")
declare function hostMonotonic(out: usize): void;

export namespace clock {
  export function tryNow(): Outcome<u64> {
    const out = area(24);
    hostNow(out);
    return taken(out);
  }

  export function tryMonotonic(): Outcome<u64> {
    const out = area(24);
    hostMonotonic(out);
    return taken(out);
  }

  /** Milliseconds since 1970-01-01T00:00Z. */
  export function now(): u64 {
    return insist(tryNow(), "clock.now");
  }

  /** Nanoseconds from some moment on, which never go back: for measuring. */
  export function monotonic(): u64 {
    return insist(tryMonotonic(), "clock.monotonic");
  }
}

function taken(out: usize): Outcome<u64> {
  if (load<u8>(out)) return Outcome.failure<u64>(failureAt(out + 8), 0);
  return Outcome.of<u64>(load<u64>(out, 8));
}
