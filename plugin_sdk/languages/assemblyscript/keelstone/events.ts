/** Capability `events`: emit events of the types that the manifest declares. */
import { address, area, failureAt } from "./abi";
import { Json } from "./json";
import { insist, Outcome } from "./outcome";

// @ts-ignore: decorator
@external("keelstone:plugin/events@1.1.0", "emit")
declare function hostEmit(type: usize, typeLength: u32, data: usize, dataLength: u32, out: usize): void;

export namespace events {
  export function tryEmit(type: string, data: Json): Outcome<bool> {
    const encoded = data.toString();
    const out = area(20);
    hostEmit(address(type), type.length, address(encoded), encoded.length, out);
    if (load<u8>(out)) return Outcome.failure<bool>(failureAt(out + 4), false);
    return Outcome.of<bool>(true);
  }

  /** Emit one event; it is saved if the call succeeds. A refusal fails the call. */
  export function emit(type: string, data: Json): void {
    insist(tryEmit(type, data), "events.emit");
  }
}
