/**
 * Keelstone's guest library for JavaScript and TypeScript.
 *
 * Export one function for each hook of the manifest, with the hook's name:
 *
 *     import { Reject, type UserDraft } from "keelstone";
 *
 *     export function user_creating(draft: UserDraft): UserDraft | undefined {
 *       if (draft.name === "") throw new Reject("Please tell us your name.");
 *       return { ...draft, name: draft.name.trim() };
 *     }
 *
 * A filter returns the changed payload, or nothing to keep it, or throws `Reject`. A decide hook
 * returns `allow(reason)`, `deny(reason)`, or nothing for no opinion. An observe hook returns nothing;
 * whatever it throws means "not done", and the event comes again later.
 *
 * Host calls are grouped by capability: `log`, `config`, `kv`, `http`, `events` and so on. They throw
 * `HostError` when the host refuses. Using one that the manifest does not ask for stops the build with
 * a message that says so.
 */
export type * from "./payloads";
export type { Json, JsonObject } from "./json";
export { allow, deny, Reject, type Decision } from "./replies";
export { HostError } from "./host";
export * as ai from "./ai";
export * as clock from "./clock";
export * as config from "./config";
export * as events from "./events";
export * as http from "./http";
export * as kv from "./kv";
export * as log from "./log";
export * as notify from "./notify";
export * as random from "./random";
export * as secrets from "./secrets";
export * as services from "./services";
