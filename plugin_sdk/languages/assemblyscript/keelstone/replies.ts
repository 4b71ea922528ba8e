/** What hooks answer: the replies of kernel/payloads.py, or a failure. */
import { result } from "./abi";
import { Json } from "./json";
import { unseenFailure } from "./outcome";
import { Payload } from "./payloads";

class Reply {
  constructor(
    protected ok: bool,
    protected content: string,
  ) {}

  /** The answer as `handle` returns it. A host call that failed unseen fails the call. */
  lower(): usize {
    const failed = unseenFailure();
    return failed !== null ? result(false, failed) : result(this.ok, this.content);
  }
}

/** Answer to a filter hook. */
export class FilterReply extends Reply {
  /** Leave the payload as it is. */
  static keep(): FilterReply {
    return new FilterReply(true, "{}");
  }

  /** Go on with this payload instead. */
  static change(payload: Payload): FilterReply {
    return new FilterReply(true, Json.object().set("payload", payload.toJson()).toString());
  }

  /** Refuse; `reason` is shown to the caller, so say what to do about it. */
  static reject(reason: string): FilterReply {
    const refusal = Json.object().set("reason", Json.text(reason));
    return new FilterReply(true, Json.object().set("reject", refusal).toString());
  }

  /** The plugin itself could not work. */
  static fail(message: string): FilterReply {
    return new FilterReply(false, message);
  }
}

/** Answer to a decide hook. */
export class DecideReply extends Reply {
  static allow(reason: string): DecideReply {
    return DecideReply.answer(true, reason);
  }

  static deny(reason: string): DecideReply {
    return DecideReply.answer(false, reason);
  }

  /** No opinion: the next implementation is asked. */
  static abstain(): DecideReply {
    return new DecideReply(true, "{}");
  }

  static fail(message: string): DecideReply {
    return new DecideReply(false, message);
  }

  private static answer(allow: bool, reason: string): DecideReply {
    const answer = Json.object().set("allow", Json.bool(allow)).set("reason", Json.text(reason));
    return new DecideReply(true, Json.object().set("answer", answer).toString());
  }
}

/** Answer to an observe hook. */
export class ObserveReply extends Reply {
  static done(): ObserveReply {
    return new ObserveReply(true, '{"done":true}');
  }

  /** Not done: the event comes again later. */
  static retry(message: string): ObserveReply {
    return new ObserveReply(false, message);
  }
}
