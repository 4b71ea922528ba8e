/** Attacks by name, as an AssemblyScript author would write them by mistake or on purpose. */
import { FilterReply, log, UserDraft } from "keelstone";

let sink = 0;

function deeper(n: i32): i32 {
  return deeper(n + 1) + deeper(n + 2);
}

export function user_creating(draft: UserDraft): FilterReply {
  if (draft.name == "loop") while (true) sink++;
  if (draft.name == "recursion") sink = deeper(1);
  if (draft.name == "memory") {
    const kept = new Array<Uint8Array>();
    while (true) kept.push(new Uint8Array(1 << 20));
  }
  if (draft.name == "abort") throw new Error("enough");
  if (draft.name == "wild") sink = load<i32>(0xfffffff0);
  if (draft.name == "flood") while (true) log.info("noise");
  return FilterReply.keep();
}
