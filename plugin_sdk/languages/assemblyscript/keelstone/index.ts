/**
 * Keelstone's guest library for AssemblyScript: everything a plugin's source may import.
 *
 * A plugin exports one function per hook of its manifest, with the hook's name:
 *
 *     import { FilterReply, UserDraft } from "keelstone";
 *
 *     export function user_creating(draft: UserDraft): FilterReply {
 *       draft.name = draft.name.trim();
 *       return FilterReply.change(draft);
 *     }
 *
 * Host calls are grouped by capability: `log`, `config`, `kv`, `http`, `events`, `secrets`, `ai`, `notify`,
 * `clock`, `random`, `services`. Using one that the manifest does not ask for stops the build with a
 * message that says so.
 */
export { Json, JsonKind } from "./json";
export { AccessRequest, EventView, InstallRequest, Payload, TenantDraft, UserDraft } from "./payloads";
export { DecideReply, FilterReply, ObserveReply } from "./replies";
export { Failure, Outcome } from "./outcome";
export { log } from "./log";
export { config } from "./config";
export { kv } from "./kv";
export { http, Header, HttpRequest, HttpResponse } from "./http";
export { events } from "./events";
export { secrets } from "./secrets";
export { ai, Completion, Prompt } from "./ai";
export { notify } from "./notify";
export { clock } from "./clock";
export { random } from "./random";
export { services } from "./services";
export { asciiLower } from "./text";
