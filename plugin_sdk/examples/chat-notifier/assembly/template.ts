/** Templates: `{name}` stands for a member of the event's data, or for the event's own fields. */
import { EventView, Json, JsonKind } from "keelstone";

/** `template` with its placeholders filled; one that names nothing leaves nothing. */
export function fill(template: string, event: EventView): string {
  const parts = new Array<string>();
  let at = 0;
  for (;;) {
    const open = template.indexOf("{", at);
    const close = open < 0 ? -1 : template.indexOf("}", open);
    if (close < 0) break;
    parts.push(template.substring(at, open));
    parts.push(value(template.substring(open + 1, close), event));
    at = close + 1;
  }
  parts.push(template.substring(at));
  return parts.join("");
}

function value(path: string, event: EventView): string {
  const found = event.data.find(path);
  if (found !== null) return spoken(found);
  if (path == "type") return event.type;
  if (path == "tenant") return event.tenant;
  if (path == "stream") return event.stream;
  if (path == "time") return event.time;
  if (path == "id") return event.id;
  return "";
}

/** A value as a person would write it. */
function spoken(found: Json): string {
  if (found.kind == JsonKind.Null) return "";
  if (found.kind != JsonKind.List) return found.plain();
  const items = new Array<string>();
  for (let i = 0; i < found.length; i++) items.push(found.at(i).plain());
  return items.join(", ");
}
