/** Posts chosen events to a chat's incoming webhook, each once as far as that can be promised. */
import { config, EventView, http, HttpRequest, kv, log, ObserveReply } from "keelstone";
import { Chat, wanted } from "./chat";
import { fill } from "./template";

/** Posted events that are remembered. Ids are ordered by time, so the first keys are the oldest. */
const REMEMBERED: u32 = 100;
/** At most this many old ones are forgotten in one call, to stay within the limit of host calls. */
const FORGOTTEN_AT_ONCE: u32 = 20;
/** Mattermost and Slack cut longer messages; Discord refuses them. */
const LONGEST: i32 = 1900;

export function event_received(event: EventView): ObserveReply {
  if (!wanted(event.type, config.list("events"))) return ObserveReply.done();
  if (event.type == "lead.scored" && tooLow(event)) return ObserveReply.done();
  const url = config.text("webhook_url", "");
  if (url.length == 0) {
    log.warn("webhook_url is not set, so " + event.type + " was not posted");
    return ObserveReply.done();
  }
  const key = "posted/" + event.id;
  if (kv.get(key) !== null) return ObserveReply.done();

  const chat = new Chat(config.text("style", "slack"));
  let message = chat.clean(fill(template(event.type), event));
  if (message.length > LONGEST) message = message.substring(0, LONGEST) + "…";
  const request = new HttpRequest("POST", url).json(chat.body(message));
  const outcome = http.send(request);

  if (outcome.failed) {
    const failure = outcome.failure;
    // Time may heal a network; it does not heal an address that is not allowed.
    if (failure.code == "unavailable" || failure.code == "deadline") {
      return ObserveReply.retry("the webhook cannot be reached: " + failure.message);
    }
    log.error(event.type + " " + event.id + " was not posted: " + failure.toString());
    return ObserveReply.done();
  }
  const status = outcome.value.status;
  if (status >= 500 || status == 429 || status == 408) {
    return ObserveReply.retry("the webhook answered " + status.toString());
  }
  if (!outcome.value.ok) {
    log.error("the webhook refused " + event.type + " " + event.id + " with " + status.toString() + "; not tried again");
    return ObserveReply.done();
  }
  remember(key, event.time);
  log.info("posted " + event.type + " " + event.id);
  return ObserveReply.done();
}

function tooLow(event: EventView): bool {
  const score = event.data.get("score");
  return score !== null && score.asNumber() < config.number("minimum_score", 0);
}

function template(type: string): string {
  const templates = config.get("templates");
  const otherwise = config.text("template", "{type} on {stream}");
  return templates === null ? otherwise : templates.text(type, otherwise);
}

/** One key an event, never one shared list: calls at the same time must not undo each other. */
function remember(key: string, time: string): void {
  kv.set(key, time);
  const keys = kv.keys("posted/", REMEMBERED + FORGOTTEN_AT_ONCE);
  for (let i = 0; i < keys.length - <i32>REMEMBERED; i++) kv.remove(keys[i]);
}
