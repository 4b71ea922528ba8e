/** The interfaces of keelstone.wit, as the component's engine offers them. */
declare module "keelstone:plugin/log@1.1.0" {
  export function write(level: "debug" | "info" | "warn" | "error", message: string): void;
}
declare module "keelstone:plugin/config@1.1.0" {
  export function get(key: string): string | null;
}
declare module "keelstone:plugin/kv@1.1.0" {
  export function get(key: string): string | null;
  export function set(key: string, value: string): void;
  const remove: (key: string) => void;
  export { remove as delete };
  export function listKeys(prefix: string, limit: number): string[];
  export function setIf(key: string, value: string, expected: string | null): boolean;
  export function setFor(key: string, value: string, seconds: number): void;
  export function getMany(keys: string[]): (string | null)[];
  export function setMany(entries: { key: string; value: string }[]): void;
}
declare module "keelstone:plugin/http@1.1.0" {
  interface Header {
    name: string;
    value: string;
  }
  export function send(request: { method: string; url: string; headers: Header[]; body: string | null }): {
    status: number;
    headers: Header[];
    body: string;
  };
}
declare module "keelstone:plugin/events@1.1.0" {
  export function emit(eventType: string, data: string): void;
}
declare module "keelstone:plugin/secrets@1.1.0" {
  export function placeholder(name: string): string;
}
declare module "keelstone:plugin/ai@1.1.0" {
  export function complete(prompt: { model: string; system: string | null; text: string; maxTokens: number }): {
    text: string;
    model: string;
    tokens: number;
  };
}
declare module "keelstone:plugin/notify@1.1.0" {
  export function send(notice: { channel: string; recipient: string; subject: string; body: string }): string;
}
declare module "keelstone:plugin/clock@1.1.0" {
  export function now(): number;
  export function monotonic(): number;
}
declare module "keelstone:plugin/random@1.1.0" {
  export function hex(bytes: number): string;
}
declare module "keelstone:plugin/services@1.1.0" {
  export function call(plugin: string, method: string, payload: string): string;
}
declare module "wasi:random/random@0.2.0" {
  export function getRandomU64(): number | bigint;
}

/** Goes to the plugin's log where the manifest asks for the capability `log`, else nowhere. */
declare var console: Record<"debug" | "log" | "info" | "warn" | "error", (...what: unknown[]) => void>;
