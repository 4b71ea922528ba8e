/** Capability `ai`: ask language models. */
import { address, area, failureAt, textAt } from "./abi";
import { Outcome } from "./outcome";

// @ts-ignore: decorator
@external("keelstone:plugin/ai@1.1.0", "complete")
declare function hostComplete(
  model: usize,
  modelLength: u32,
  hasSystem: i32,
  system: usize,
  systemLength: u32,
  text: usize,
  textLength: u32,
  maxTokens: u32,
  out: usize,
): void;

export class Prompt {
  /** What the model should be and do, if anything. */
  system: string | null = null;
  /** Most tokens of the answer; 0 takes what the limits leave. */
  maxTokens: u32 = 0;

  constructor(
    public model: string,
    public text: string,
  ) {}
}

export class Completion {
  constructor(
    public text: string,
    public model: string,
    /** Both ways. */
    public tokens: u32,
  ) {}
}

export namespace ai {
  /** What the model answers; or why it could not be asked. */
  export function complete(prompt: Prompt): Outcome<Completion> {
    const system = prompt.system;
    const given = system === null ? "" : system;
    const out = area(24);
    hostComplete(
      address(prompt.model),
      prompt.model.length,
      system === null ? 0 : 1,
      address(given),
      given.length,
      address(prompt.text),
      prompt.text.length,
      prompt.maxTokens,
      out,
    );
    if (load<u8>(out)) return Outcome.failure<Completion>(failureAt(out + 4), new Completion("", "", 0));
    return Outcome.of<Completion>(new Completion(textAt(out + 4), textAt(out + 12), load<u32>(out, 20)));
  }
}
