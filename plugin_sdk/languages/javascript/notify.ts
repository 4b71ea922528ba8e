/** Capability `notify`: messages to people, over the channels that the tenant has set up. */
import * as host from "keelstone:plugin/notify@1.1.0";
import { asked } from "./host";

export interface Notice {
  channel: string;
  recipient: string;
  subject: string;
  body: string;
}

/** The message's id, once it is accepted for delivery. */
export function send(notice: Notice): string {
  return asked("notify.send", () => host.send(notice));
}
