/** Capability `ai`: language models, through the platform's own providers. */
import * as host from "keelstone:plugin/ai@1.1.0";
import { asked } from "./host";

export interface Prompt {
  model: string;
  system?: string;
  text: string;
  maxTokens: number;
}

/** `tokens` counts both ways. */
export interface Completion {
  readonly text: string;
  readonly model: string;
  readonly tokens: number;
}

/** What the model answers. */
export function complete(prompt: Prompt): Completion {
  return asked("ai.complete", () => host.complete({ ...prompt, system: prompt.system ?? null }));
}
