/**
 * Capability `kv`: small durable state, private to this plugin and tenant. The writes of one call are
 * saved together, and only if the call succeeds.
 */
import * as host from "keelstone:plugin/kv@1.1.0";
import { asked } from "./host";
import type { Json } from "./json";

/** The value of a key, `undefined` if there is none. */
export function get(key: string): string | undefined {
  return asked("kv.get", () => host.get(key)) ?? undefined;
}

export function set(key: string, value: string): void {
  asked("kv.set", () => host.set(key, value));
}

export function remove(key: string): void {
  asked("kv.delete", () => host.delete(key));
}

/** Keys that begin with `prefix`, in order, at most `limit`. */
export function keys(prefix = "", limit = 100): string[] {
  return asked("kv.list-keys", () => host.listKeys(prefix, limit));
}

/** Write only if the key has the value `expected` (`undefined`: there is no such key). False if not. */
export function setIf(key: string, value: string, expected: string | undefined): boolean {
  return asked("kv.set-if", () => host.setIf(key, value, expected ?? null));
}

/** Write a value that is gone after so many seconds. */
export function setFor(key: string, value: string, seconds: number): void {
  asked("kv.set-for", () => host.setFor(key, value, seconds));
}

/** The values of several keys, in that order. */
export function getMany(wanted: string[]): (string | undefined)[] {
  return asked("kv.get-many", () => host.getMany(wanted)).map((value) => value ?? undefined);
}

/** Write several values: all of them, or none if one is refused. */
export function setMany(values: Record<string, string>): void {
  const entries = Object.entries(values).map(([key, value]) => ({ key, value }));
  asked("kv.set-many", () => host.setMany(entries));
}

/** The value of a key that `setJson` wrote. */
export function getJson(key: string): Json | undefined {
  const found = get(key);
  return found === undefined ? undefined : (JSON.parse(found) as Json);
}

export function setJson(key: string, value: Json): void {
  set(key, JSON.stringify(value));
}
