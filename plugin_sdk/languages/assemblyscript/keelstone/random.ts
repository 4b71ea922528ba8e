/** Capability `random`: unpredictable numbers, fit for keys. */
import { area, failureAt, textAt } from "./abi";
import { insist, Outcome } from "./outcome";

// @ts-ignore: decorator
@external("keelstone:plugin/random@1.1.0", "number")
declare function hostNumber(out: usize): void;

// @ts-ignore: decorator
@external("keelstone:plugin/random@1.1.0", "hex")
declare function hostHex(bytes: u32, out: usize): void;

export namespace random {
  export function tryNumber(): Outcome<u64> {
    const out = area(24);
    hostNumber(out);
    if (load<u8>(out)) return Outcome.failure<u64>(failureAt(out + 8), 0);
    return Outcome.of<u64>(load<u64>(out, 8));
  }

  export function tryHex(bytes: u32): Outcome<string> {
    const out = area(20);
    hostHex(bytes, out);
    if (load<u8>(out)) return Outcome.failure<string>(failureAt(out + 4), "");
    return Outcome.of<string>(textAt(out + 4));
  }

  /** Any number of 64 bits. */
  export function number(): u64 {
    return insist(tryNumber(), "random.number");
  }

  /** So many random bytes (1 to 1024) as hexadecimal text. */
  export function hex(bytes: u32): string {
    return insist(tryHex(bytes), "random.hex");
  }
}
