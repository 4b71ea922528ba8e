/** The probe of the guest library for TypeScript: does what its payload's attributes tell it. */
import {
  ai, allow, clock, config, deny, events, HostError, http, kv, log, notify, random, secrets, services,
  type AccessRequest, type Decision, type EventView, type Json, type UserDraft,
} from "keelstone";

const code = (call: () => unknown, otherwise: string): string => {
  try {
    call();
  } catch (error) {
    if (error instanceof HostError) return error.code;
    throw error;
  }
  return otherwise;
};

const todo: Record<string, () => Json[]> = {
  settings: () => [
    config.text("text", "none"), config.number("number", -1), config.flag("flag", false), ...config.list("list"),
  ],
  log() {
    log.debug("d"), log.info("i \u00e9\u{1F600}"), log.warn("w"), log.error("e");
    console.log("printed", { by: "console" });
    return [];
  },
  kv() {
    kv.set("b", "2"), kv.set("a", "1 \u00e9\u{1F600}"), kv.set("c", "");
    const empty = kv.get("c") === "";
    kv.remove("c");
    return [empty, kv.get("c") === undefined, ...kv.keys("", 10).map((key) => kv.get(key) ?? "?")];
  },
  refused: () => [
    code(() => kv.get("a"), "got"),
    code(() => kv.keys("", 1), "listed"),
    code(() => events.emit("probe.tried", {}), "emitted"),
    code(() => http.get("https://example.com/"), "sent"),
    code(() => config.get("text"), "asked"),
  ],
  insist() {
    kv.set("a", "1");
    return ["went on"];
  },
  emit() {
    events.emit("probe.tried", { n: 7 });
    return [];
  },
  fetch() {
    const answer = http.post(config.text("target", "") + "echo", { json: { x: 1 }, headers: { "x-probe": "yes" } });
    return [answer.status, answer.ok, answer.body, answer.headers["x-answer"] ?? "none"];
  },
  more() {
    kv.setMany({ x: "1", y: "" });
    const said: Json[] = kv.getMany(["x", "nope", "y"]).map((value) => value ?? null);
    said.push(kv.setIf("x", "2", "1"), kv.setIf("x", "3", undefined));
    kv.setFor("t", "gone", 60);
    said.push(kv.get("t") ?? "none", clock.now() > 1_700_000_000_000);
    const before = clock.monotonic();
    said.push(clock.monotonic() >= before, random.number() !== random.number(), random.hex(8).length === 16);
    said.push(secrets.placeholder("token") !== "");
    const answer = ai.complete({ model: "small", system: "Be brief.", text: "What?", maxTokens: 50 });
    said.push(answer.text, answer.model, answer.tokens);
    said.push(notify.send({ channel: "email", recipient: "ann@example.com", subject: "Hi", body: "Body \u00e9" }));
    said.push((services.call("acme/other", "lookup", { q: "\u00e9" }) as { found: string }).found);
    said.push(code(() => ai.complete({ model: "large", text: "What?", maxTokens: 50 }), "answered"));
    return said;
  },
  machine: () => [Date.now() > 1_700_000_000_000, Math.random()],
  crash() {
    throw new Error("on purpose");
  },
  fail() {
    throw new Error("cannot");
  },
};

export function user_creating(draft: UserDraft): UserDraft {
  const said = todo[String(draft.attributes["do"])]?.() ?? [];
  return { ...draft, attributes: { ...draft.attributes, said } };
}

export function access_deciding(request: AccessRequest): Decision | undefined {
  if (request.action === "allow") return allow(`${request.principal}/${request.roles.join(",")}`);
  return request.action === "deny" ? deny("no") : undefined;
}

export function event_received(event: EventView): void {
  if ("fail" in event.data) throw new Error("later");
  log.info(`${event.type} ${event.version} ${event.tenant}`);
}
