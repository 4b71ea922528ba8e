/** Capability `config`: the tenant's settings for this plugin, after defaults. */
import * as host from "keelstone:plugin/config@1.1.0";
import { asked } from "./host";
import type { Json } from "./json";

/** One setting, `undefined` if it is not set. */
export function get(key: string): Json | undefined {
  const found = asked("config.get", () => host.get(key));
  return found === null || found === undefined ? undefined : (JSON.parse(found) as Json);
}

export function text(key: string, otherwise: string): string {
  const found = get(key);
  return typeof found === "string" ? found : otherwise;
}

export function number(key: string, otherwise: number): number {
  const found = get(key);
  return typeof found === "number" ? found : otherwise;
}

export function flag(key: string, otherwise: boolean): boolean {
  const found = get(key);
  return typeof found === "boolean" ? found : otherwise;
}

/** A setting that is a list of strings; empty if it is not set. */
export function list(key: string): string[] {
  const found = get(key);
  return Array.isArray(found) ? found.filter((item) => typeof item === "string") : [];
}
