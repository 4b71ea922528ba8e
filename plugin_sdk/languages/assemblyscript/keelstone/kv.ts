/**
 * Capability `kv`: small durable state, private to this plugin and tenant.
 *
 * The plain functions fail the whole call when the host refuses; the `try` ones hand the refusal back.
 */
import { address, area, failureAt, textAt } from "./abi";
import { insist, Outcome } from "./outcome";

// @ts-ignore: decorator
@external("keelstone:plugin/kv@1.1.0", "get")
declare function hostGet(key: usize, length: u32, out: usize): void;

// @ts-ignore: decorator
@external("keelstone:plugin/kv@1.1.0", "set")
declare function hostSet(key: usize, length: u32, value: usize, valueLength: u32, out: usize): void;

// @ts-ignore: decorator
@external("keelstone:plugin/kv@1.1.0", "delete")
declare function hostDelete(key: usize, length: u32, out: usize): void;

// @ts-ignore: decorator
@external("keelstone:plugin/kv@1.1.0", "list-keys")
declare function hostList(prefix: usize, length: u32, limit: u32, out: usize): void;

export namespace kv {
  export function tryGet(key: string): Outcome<string | null> {
    const out = area(20);
    hostGet(address(key), key.length, out);
    if (load<u8>(out)) return Outcome.failure<string | null>(failureAt(out + 4), null);
    return Outcome.of<string | null>(load<u8>(out, 4) ? textAt(out + 8) : null);
  }

  export function trySet(key: string, value: string): Outcome<bool> {
    const out = area(20);
    hostSet(address(key), key.length, address(value), value.length, out);
    return written(out);
  }

  export function tryRemove(key: string): Outcome<bool> {
    const out = area(20);
    hostDelete(address(key), key.length, out);
    return written(out);
  }

  export function tryKeys(prefix: string, limit: u32): Outcome<string[]> {
    const out = area(20);
    hostList(address(prefix), prefix.length, limit, out);
    const keys = new Array<string>();
    if (load<u8>(out)) return Outcome.failure<string[]>(failureAt(out + 4), keys);
    const first = <usize>load<u32>(out, 4);
    const count = load<u32>(out, 8);
    for (let i: u32 = 0; i < count; i++) keys.push(textAt(first + 8 * i));
    return Outcome.of<string[]>(keys);
  }

  /** The value of `key`, null if there is none. */
  export function get(key: string): string | null {
    return insist(tryGet(key), "kv.get");
  }

  export function set(key: string, value: string): void {
    insist(trySet(key, value), "kv.set");
  }

  export function remove(key: string): void {
    insist(tryRemove(key), "kv.delete");
  }

  /** Keys that begin with `prefix`, in order, at most `limit`. */
  export function keys(prefix: string, limit: u32 = 100): string[] {
    return insist(tryKeys(prefix, limit), "kv.list-keys");
  }
}

function written(out: usize): Outcome<bool> {
  if (load<u8>(out)) return Outcome.failure<bool>(failureAt(out + 4), false);
  return Outcome.of<bool>(true);
}
