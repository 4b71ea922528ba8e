/** Capability `services`: what other plugins offer. */
import * as host from "keelstone:plugin/services@1.1.0";
import { asked } from "./host";
import type { Json } from "./json";

/** The answer of another plugin's method, in this call's tenant. */
export function call(plugin: string, method: string, payload: Json): Json {
  return JSON.parse(asked("services.call", () => host.call(plugin, method, JSON.stringify(payload)))) as Json;
}
