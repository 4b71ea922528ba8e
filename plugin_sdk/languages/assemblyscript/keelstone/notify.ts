/** Capability `notify`: messages to people. */
import { address, area, failureAt, textAt } from "./abi";
import { Outcome } from "./outcome";

// @ts-ignore: decorator
@external("keelstone:plugin/notify@1.1.0", "send")
declare function hostSend(
  channel: usize,
  channelLength: u32,
  recipient: usize,
  recipientLength: u32,
  subject: usize,
  subjectLength: u32,
  body: usize,
  bodyLength: u32,
  out: usize,
): void;

export namespace notify {
  /** The message's id, once it is accepted for delivery; or why it was not. */
  export function send(channel: string, recipient: string, subject: string, body: string): Outcome<string> {
    const out = area(20);
    hostSend(
      address(channel),
      channel.length,
      address(recipient),
      recipient.length,
      address(subject),
      subject.length,
      address(body),
      body.length,
      out,
    );
    if (load<u8>(out)) return Outcome.failure<string>(failureAt(out + 4), "");
    return Outcome.of<string>(textAt(out + 4));
  }
}
