/** What the three chats have in common, and where they differ. */
import { Json } from "keelstone";

export class Chat {
  constructor(private style: string) {}

  /** The webhook's body. */
  body(message: string): string {
    const body = Json.object();
    if (this.style == "discord") {
      body.set("content", Json.text(message));
      // Nobody outside may ring everybody's bell by registering as "@everyone".
      body.set("allowed_mentions", Json.object().set("parse", Json.list()));
    } else {
      body.set("text", Json.text(message));
    }
    return body.toString();
  }

  /** `message` without what the chat would take for a command, a link or a call to everybody. */
  clean(message: string): string {
    if (this.style == "slack") {
      return message.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
    }
    if (this.style != "mattermost") return message;
    // A zero-width space after the @ keeps the text readable and the call to everybody dead.
    return message
      .replaceAll("@channel", "@\u200bchannel")
      .replaceAll("@all", "@\u200ball")
      .replaceAll("@here", "@\u200bhere");
  }
}

/** Whether `type` is one of `patterns`, which may end in `.*`. */
export function wanted(type: string, patterns: string[]): bool {
  for (let i = 0; i < patterns.length; i++) {
    const pattern = patterns[i];
    if (pattern == type || pattern == "*") return true;
    if (pattern.endsWith(".*") && type.startsWith(pattern.substring(0, pattern.length - 1))) return true;
  }
  return false;
}
