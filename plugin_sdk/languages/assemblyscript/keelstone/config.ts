/** Capability `config`: the tenant's settings for this plugin, after defaults. */
import { address, area, failureAt, textAt } from "./abi";
import { Json, JsonKind } from "./json";
import { insist, Outcome } from "./outcome";

// @ts-ignore: decorator
@external("keelstone:plugin/config@1.1.0", "get")
declare function hostGet(key: usize, length: u32, out: usize): void;

export namespace config {
  /** One setting as JSON text, null if it is not set; or why it cannot be read. */
  export function tryGet(key: string): Outcome<string | null> {
    const out = area(20);
    hostGet(address(key), key.length, out);
    if (load<u8>(out)) return Outcome.failure<string | null>(failureAt(out + 4), null);
    return Outcome.of<string | null>(load<u8>(out, 4) ? textAt(out + 8) : null);
  }

  /** One setting, null if it is not set. A refusal fails the call. */
  export function get(key: string): Json | null {
    const found = insist(tryGet(key), "config.get");
    return found === null ? null : Json.parse(found);
  }

  /** A string setting. */
  export function text(key: string, otherwise: string): string {
    const found = get(key);
    return found !== null && found.kind == JsonKind.Text ? found.asText() : otherwise;
  }

  /** A true or false setting. */
  export function flag(key: string, otherwise: bool): bool {
    const found = get(key);
    return found !== null && found.kind == JsonKind.Bool ? found.asBool() : otherwise;
  }

  /** A numeric setting. */
  export function number(key: string, otherwise: f64): f64 {
    const found = get(key);
    return found !== null && found.kind == JsonKind.Number ? found.asNumber() : otherwise;
  }

  /** A setting that is a list of strings; empty if it is not set. */
  export function list(key: string): string[] {
    const found = get(key);
    return found === null ? new Array<string>() : found.asTexts();
  }
}
