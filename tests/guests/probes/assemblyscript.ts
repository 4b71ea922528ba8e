/** The probe of the guest library for AssemblyScript: does what its payload's attributes tell it. */
import { AccessRequest, ai, clock, config, DecideReply, events, EventView, FilterReply, http, HttpRequest, Json, kv, log,
  notify, ObserveReply, Prompt, random, secrets, services, UserDraft } from "keelstone";

export function user_creating(draft: UserDraft): FilterReply {
  const said = Json.list();
  const todo = draft.attributes.text("do");
  if (todo == "settings") {
    said.push(Json.text(config.text("text", "none")));
    said.push(Json.number(config.number("number", -1)));
    said.push(Json.bool(config.flag("flag", false)));
    const list = config.list("list");
    for (let i = 0; i < list.length; i++) said.push(Json.text(list[i]));
  } else if (todo == "log") {
    log.debug("d"); log.info("i \u00e9\ud83d\ude00"); log.warn("w"); log.error("e");
  } else if (todo == "kv") {
    kv.set("b", "2"); kv.set("a", "1 \u00e9\ud83d\ude00"); kv.set("c", "");
    const c = kv.get("c");
    said.push(Json.bool(c !== null && c.length == 0));
    kv.remove("c");
    said.push(Json.bool(kv.get("c") === null));
    const keys = kv.keys("", 10);
    for (let i = 0; i < keys.length; i++) { const v = kv.get(keys[i]); said.push(Json.text(v === null ? "?" : v)); }
  } else if (todo == "refused") {
    const got = kv.tryGet("a");
    said.push(Json.text(got.failed ? got.failure.code : "got"));
    const listed = kv.tryKeys("", 1);
    said.push(Json.text(listed.failed ? listed.failure.code : "listed"));
    const emitted = events.tryEmit("probe.tried", Json.object());
    said.push(Json.text(emitted.failed ? emitted.failure.code : "emitted"));
    const sent = http.send(new HttpRequest("GET", "https://example.com/"));
    said.push(Json.text(sent.failed ? sent.failure.code : "sent"));
    const asked = config.tryGet("text");
    said.push(Json.text(asked.failed ? asked.failure.code : "asked"));
  } else if (todo == "insist") {
    kv.set("a", "1");
    said.push(Json.text("went on"));
  } else if (todo == "emit") {
    events.emit("probe.tried", Json.object().set("n", Json.integer(7)));
  } else if (todo == "fetch") {
    const request = new HttpRequest("POST", config.text("target", "") + "echo");
    const outcome = http.send(request.json('{"x":1}').header("x-probe", "yes"));
    if (outcome.failed) return FilterReply.fail(outcome.failure.toString());
    said.push(Json.integer(outcome.value.status)).push(Json.bool(outcome.value.ok)).push(Json.text(outcome.value.body));
    const header = outcome.value.header("X-Answer");
    said.push(Json.text(header === null ? "none" : header));
  } else if (todo == "more") {
    more(said);
  } else if (todo == "crash") {
    throw new Error("on purpose");
  } else if (todo == "fail") {
    return FilterReply.fail("cannot");
  }
  draft.attributes.set("said", said);
  return FilterReply.change(draft);
}

export function access_deciding(request: AccessRequest): DecideReply {
  if (request.action == "allow") return DecideReply.allow(request.principal + "/" + request.roles.join(","));
  if (request.action == "deny") return DecideReply.deny("no");
  return DecideReply.abstain();
}

export function event_received(event: EventView): ObserveReply {
  if (event.data.has("fail")) return ObserveReply.retry("later");
  log.info(event.type + " " + event.version.toString() + " " + event.tenant);
  return ObserveReply.done();
}

function more(said: Json): void {
  kv.setMany(new Map<string, string>().set("x", "1").set("y", ""));
  const many = kv.getMany(["x", "nope", "y"]);
  for (let i = 0; i < many.length; i++) {
    const value = many[i];
    said.push(value === null ? Json.null() : Json.text(value));
  }
  said.push(Json.bool(kv.setIf("x", "2", "1"))).push(Json.bool(kv.setIf("x", "3", null)));
  kv.setFor("t", "gone", 60);
  const t = kv.get("t");
  said.push(Json.text(t === null ? "none" : t));
  said.push(Json.bool(clock.now() > 1700000000000));
  const before = clock.monotonic();
  said.push(Json.bool(clock.monotonic() >= before));
  said.push(Json.bool(random.number() != random.number())).push(Json.bool(random.hex(8).length == 16));
  said.push(Json.bool(secrets.placeholder("token").length > 0));
  const prompt = new Prompt("small", "What?");
  prompt.system = "Be brief.";
  prompt.maxTokens = 50;
  const answer = ai.complete(prompt).value;
  said.push(Json.text(answer.text)).push(Json.text(answer.model)).push(Json.integer(answer.tokens));
  said.push(Json.text(notify.send("email", "ann@example.com", "Hi", "Body \u00e9").value));
  const found = services.call("acme/other", "lookup", Json.object().set("q", Json.text("\u00e9")));
  said.push(Json.text(found.value.text("found")));
  prompt.model = "large";
  const large = ai.complete(prompt);
  said.push(Json.text(large.failed ? large.failure.code : "answered"));
}
