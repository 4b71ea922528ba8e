/** Capability `events`: emit events of the types that the manifest declares. */
import * as host from "keelstone:plugin/events@1.1.0";
import { asked } from "./host";
import type { JsonObject } from "./json";

/** Emit one event; it is saved if the call succeeds. */
export function emit(eventType: string, data: JsonObject): void {
  asked("events.emit", () => host.emit(eventType, JSON.stringify(data)));
}
