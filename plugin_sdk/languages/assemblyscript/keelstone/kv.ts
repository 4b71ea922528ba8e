/**
 * Capability `kv`: small durable state, private to this plugin and tenant.
 *
 * The plain functions fail the whole call when the host refuses; the `try` ones hand the refusal back.
 */
import { address, area, failureAt, put, textAt } from "./abi";
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

// @ts-ignore: decorator
@external("keelstone:plugin/kv@1.1.0", "set-if")
declare function hostSetIf(
  key: usize,
  length: u32,
  value: usize,
  valueLength: u32,
  isExpected: i32,
  expected: usize,
  expectedLength: u32,
  out: usize,
): void;

// @ts-ignore: decorator
@external("keelstone:plugin/kv@1.1.0", "set-for")
declare function hostSetFor(
  key: usize,
  length: u32,
  value: usize,
  valueLength: u32,
  seconds: u32,
  out: usize,
): void;

// @ts-ignore: decorator
@external("keelstone:plugin/kv@1.1.0", "get-many")
declare function hostGetMany(keys: usize, count: u32, out: usize): void;

// @ts-ignore: decorator
@external("keelstone:plugin/kv@1.1.0", "set-many")
declare function hostSetMany(entries: usize, count: u32, out: usize): void;

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

  export function trySetIf(key: string, value: string, expected: string | null): Outcome<bool> {
    const out = area(20);
    const text = expected === null ? "" : expected;
    hostSetIf(
      address(key),
      key.length,
      address(value),
      value.length,
      expected === null ? 0 : 1,
      address(text),
      text.length,
      out,
    );
    if (load<u8>(out)) return Outcome.failure<bool>(failureAt(out + 4), false);
    return Outcome.of<bool>(load<u8>(out, 4) != 0);
  }

  export function trySetFor(key: string, value: string, seconds: u32): Outcome<bool> {
    const out = area(20);
    hostSetFor(address(key), key.length, address(value), value.length, seconds, out);
    return written(out);
  }

  export function tryGetMany(keys: string[]): Outcome<Array<string | null>> {
    const out = area(20);
    const list = area(8 * keys.length);
    for (let i = 0; i < keys.length; i++) put(list + 8 * i, keys[i]);
    hostGetMany(list, keys.length, out);
    const values = new Array<string | null>();
    if (load<u8>(out)) return Outcome.failure<Array<string | null>>(failureAt(out + 4), values);
    const first = <usize>load<u32>(out, 4);
    const count = load<u32>(out, 8);
    for (let i: u32 = 0; i < count; i++) {
      const at = first + 12 * i;
      values.push(load<u8>(at) ? textAt(at + 4) : null);
    }
    return Outcome.of<Array<string | null>>(values);
  }

  export function trySetMany(values: Map<string, string>): Outcome<bool> {
    const keys = values.keys();
    const list = area(16 * keys.length);
    for (let i = 0; i < keys.length; i++) {
      put(list + 16 * i, keys[i]);
      put(list + 16 * i + 8, values.get(keys[i]));
    }
    const out = area(20);
    hostSetMany(list, keys.length, out);
    return written(out);
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

  /** Write only if the key has the value `expected` (null: there is no such key). False if it has not. */
  export function setIf(key: string, value: string, expected: string | null): bool {
    return insist(trySetIf(key, value, expected), "kv.set-if");
  }

  /** Write a value that is gone after so many seconds. */
  export function setFor(key: string, value: string, seconds: u32): void {
    insist(trySetFor(key, value, seconds), "kv.set-for");
  }

  /** The values of several keys, in the order asked for; null where there is none. */
  export function getMany(keys: string[]): Array<string | null> {
    return insist(tryGetMany(keys), "kv.get-many");
  }

  /** Write several values: all of them, or none. */
  export function setMany(values: Map<string, string>): void {
    insist(trySetMany(values), "kv.set-many");
  }
}

function written(out: usize): Outcome<bool> {
  if (load<u8>(out)) return Outcome.failure<bool>(failureAt(out + 4), false);
  return Outcome.of<bool>(true);
}
