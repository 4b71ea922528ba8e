/** Capability `services`: what other plugins offer. */
import { address, area, failureAt, textAt } from "./abi";
import { Json } from "./json";
import { Failure, Outcome } from "./outcome";

// @ts-ignore: decorator
@external("keelstone:plugin/services@1.1.0", "call")
declare function hostCall(
  plugin: usize,
  pluginLength: u32,
  method: usize,
  methodLength: u32,
  payload: usize,
  payloadLength: u32,
  out: usize,
): void;

export namespace services {
  /** The answer of another plugin's method, in this call's tenant; or why there is none. */
  export function call(plugin: string, method: string, payload: Json): Outcome<Json> {
    const given = payload.toString();
    const out = area(20);
    hostCall(
      address(plugin),
      plugin.length,
      address(method),
      method.length,
      address(given),
      given.length,
      out,
    );
    if (load<u8>(out)) return Outcome.failure<Json>(failureAt(out + 4), Json.null());
    const answer = Json.parse(textAt(out + 4));
    if (answer === null) return Outcome.failure<Json>(new Failure("invalid", "the answer is not JSON"), Json.null());
    return Outcome.of<Json>(answer);
  }
}
