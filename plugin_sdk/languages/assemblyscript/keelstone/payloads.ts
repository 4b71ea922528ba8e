/** What hooks receive: the classes of kernel/payloads.py. */
import { Json, JsonKind } from "./json";

/** Base of payloads that a filter can hand back. */
export abstract class Payload {
  abstract toJson(): Json;
}

/** A person about to be registered or changed in one tenant. */
export class UserDraft extends Payload {
  constructor(
    public email: string,
    public name: string,
    public attributes: Json,
  ) {
    super();
  }

  static from(data: Json): UserDraft {
    return new UserDraft(data.text("email"), data.text("name"), objectAt(data, "attributes"));
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
    public id: string,
    public name: string,
    public plan: string,
    public configuration: Json,
  ) {
    super();
  }

  static from(data: Json): TenantDraft {
    return new TenantDraft(data.text("id"), data.text("name"), data.text("plan"), objectAt(data, "configuration"));
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
    public principal: string,
    public roles: string[],
    public permissions: string[],
    public action: string,
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
    public plugin: string,
    public version: string,
    public digest: string,
    public publisher: string,
    public capabilities: string[],
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

/** A committed event. */
export class EventView {
  constructor(
    public id: string,
    public type: string,
    public tenant: string,
    public stream: string,
    public version: i64,
    public position: i64,
    public time: string,
    public data: Json,
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
