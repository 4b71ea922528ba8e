/** Capability `random`: unpredictable numbers, fit for keys (Math.random is not). */
import * as host from "keelstone:plugin/random@1.1.0";
import { asked } from "./host";

/** So many random bytes (1 to 1024) as hexadecimal text. */
export function hex(bytes: number): string {
  return asked("random.hex", () => host.hex(bytes));
}

/** A whole number below 2 to the 64th. */
export function number(): bigint {
  return BigInt(`0x${hex(8)}`);
}
