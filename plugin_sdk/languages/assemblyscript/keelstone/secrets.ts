/** Capability `secrets`: have secrets sent that the plugin cannot read. */
import { address, area, failureAt, textAt } from "./abi";
import { insist, Outcome } from "./outcome";

// @ts-ignore: decorator
@external("keelstone:plugin/secrets@1.1.0", "placeholder")
declare function hostPlaceholder(name: usize, length: u32, out: usize): void;

export namespace secrets {
  export function tryPlaceholder(name: string): Outcome<string> {
    const out = area(20);
    hostPlaceholder(address(name), name.length, out);
    if (load<u8>(out)) return Outcome.failure<string>(failureAt(out + 4), "");
    return Outcome.of<string>(textAt(out + 4));
  }

  /** Text that stands for the secret in this call's requests. A refusal fails the call. */
  export function placeholder(name: string): string {
    return insist(tryPlaceholder(name), "secrets.placeholder");
  }
}
