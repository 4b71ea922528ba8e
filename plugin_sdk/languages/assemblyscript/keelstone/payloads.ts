/** What hooks receive. Generated from kernel/payloads.py: `python -m plugin_sdk.toolchain.typed`. */
import { Json, JsonKind } from "./json";

/** Base of payloads that a filter can hand back. */
export abstract class Payload {
  abstract toJson(): Json;
}

/** A person about to be registered or changed in one tenant. */
export class UserDraft extends Payload {
  constructor(
    /** Address, as it was given. */
    public email: string,
    /** The person's name. */
    public name: string,
    /** Whatever else is known, as plain JSON. */
    public attributes: Json,
  ) {
    super();
  }

  static from(data: Json): UserDraft {
    return new UserDraft(
      data.text("email"),
      data.text("name"),
      objectAt(data, "attributes"),
    );
  }

  toJson(): Json {
    return Json.object()
      .set("email", Json.text(this.email))
      .set("name", Json.text(this.name))
      .set("attributes", this.attributes);
  }
}

/** A tenant about to be provisioned. */
export class TenantDraft extends Payload {
  constructor(
    /** The id that the tenant will have. */
    public id: string,
    /** What people call it. */
    public name: string,
    /** The plan that it is on. */
    public plan: string,
    /** The tenant's configuration, as plain JSON. */
    public configuration: Json,
  ) {
    super();
  }

  static from(data: Json): TenantDraft {
    return new TenantDraft(
      data.text("id"),
      data.text("name"),
      data.text("plan", "free"),
      objectAt(data, "configuration"),
    );
  }

  toJson(): Json {
    return Json.object()
      .set("id", Json.text(this.id))
      .set("name", Json.text(this.name))
      .set("plan", Json.text(this.plan))
      .set("configuration", this.configuration);
  }
}

/** May this principal do this to that? */
export class AccessRequest {
  constructor(
    /** Id of who asks. */
    public principal: string,
    /** The principal's roles. */
    public roles: string[],
    /** The principal's permissions. */
    public permissions: string[],
    /** The permission that is asked for. */
    public action: string,
    /** What it is asked for; `*` for anything. */
    public resource: string,
  ) {}

  static from(data: Json): AccessRequest {
    return new AccessRequest(
      data.text("principal"),
      textsAt(data, "roles"),
      textsAt(data, "permissions"),
      data.text("action"),
      data.text("resource", "*"),
    );
  }
}

/** A verified release about to be installed on the platform. */
export class InstallRequest {
  constructor(
    /** The plugin's id. */
    public plugin: string,
    /** The release. */
    public version: string,
    /** SHA-256 of the package, in hex. */
    public digest: string,
    /** Who signed it. */
    public publisher: string,
    /** What its manifest asks for. */
    public capabilities: string[],
    /** Where it wants to send requests. */
    public hosts: string[],
  ) {}

  static from(data: Json): InstallRequest {
    return new InstallRequest(
      data.text("plugin"),
      data.text("version"),
      data.text("digest"),
      data.text("publisher"),
      textsAt(data, "capabilities"),
      textsAt(data, "hosts"),
    );
  }
}

/** A committed event, as observers see it. */
export class EventView {
  constructor(
    /** The event's id, the same at every delivery. */
    public id: string,
    /** The event's type. */
    public type: string,
    /** Whose event it is. */
    public tenant: string,
    /** The stream that it belongs to. */
    public stream: string,
    /** Its place in the stream, from 1. */
    public version: i64,
    /** Its place in the global order. */
    public position: i64,
    /** When it was committed, ISO 8601. */
    public time: string,
    /** What happened, by the schema of its type. */
    public data: Json,
    /** Id of the work that caused it; empty if unknown. */
    public correlationId: string,
  ) {}

  static from(data: Json): EventView {
    return new EventView(
      data.text("id"),
      data.text("type"),
      data.text("tenant"),
      data.text("stream"),
      integerAt(data, "version"),
      integerAt(data, "position"),
      data.text("time"),
      objectAt(data, "data"),
      data.text("correlation_id"),
    );
  }
}

function objectAt(data: Json, name: string): Json {
  const found = data.get(name);
  return found !== null && found.kind == JsonKind.Object ? found : Json.object();
}

function textsAt(data: Json, name: string): string[] {
  const found = data.get(name);
  return found === null ? new Array<string>() : found.asTexts();
}

function integerAt(data: Json, name: string): i64 {
  const found = data.get(name);
  return found === null ? 0 : found.asInteger();
}
