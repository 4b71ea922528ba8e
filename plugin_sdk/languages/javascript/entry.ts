/** What the generated entry needs, and plugins do not. */
import { getRandomU64 } from "wasi:random/random@0.2.0";

export { replied } from "./replies";

/**
 * The engine is frozen at build time with the state of its generator: Math.random would give every
 * instance the same numbers. This one (sfc32, by Chris Doty-Humphrey, PractRand) begins anew at each call.
 */
export function reseed(): void {
  const word = (): number => Number(getRandomU64()) | 0;
  let [a, b, c, d] = [word(), word(), word(), 1];
  const next = (): number => {
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + t;
    return (t >>> 0) / 4294967296;
  };
  for (let i = 0; i < 12; i++) next();
  Math.random = next;
}

/** A value as console.log shows it. */
export function shown(what: unknown[]): string {
  return what.map((one) => (typeof one === "string" ? one : (JSON.stringify(one) ?? String(one)))).join(" ");
}

/** What went wrong, with the stack for the log. */
export function described(error: unknown): { message: string; stack: string } {
  if (!(error instanceof Error)) return { message: String(error), stack: String(error) };
  const message = `${error.name}: ${error.message}`;
  return { message, stack: `${message}\n${error.stack ?? ""}`.trimEnd() };
}
