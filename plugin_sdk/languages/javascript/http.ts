/** Capability `http`: outgoing requests to the hosts in the manifest. */
import * as host from "keelstone:plugin/http@1.1.0";
import { asked } from "./host";
import type { Json } from "./json";

export interface Options {
  headers?: Record<string, string>;
  body?: string;
  /** Sent as the body, with its content type. */
  json?: Json;
}

/** An answer, whatever its status. `headers` have lower-case names. */
export interface Response {
  readonly status: number;
  /** True for the statuses 200 to 299. */
  readonly ok: boolean;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export function send(method: string, url: string, options: Options = {}): Response {
  const sent: Record<string, string> = { ...options.headers };
  let body = options.body ?? null;
  if (options.json !== undefined) {
    body = JSON.stringify(options.json);
    sent["content-type"] ??= "application/json";
  }
  const headers = Object.entries(sent).map(([name, value]) => ({ name, value }));
  const answer = asked("http.send", () => host.send({ method: method.toUpperCase(), url, headers, body }));
  const received = answer.headers.map(({ name, value }) => [name.toLowerCase(), value] as const);
  return {
    status: answer.status,
    ok: answer.status >= 200 && answer.status < 300,
    headers: Object.fromEntries(received),
    body: answer.body,
  };
}

export function get(url: string, options: Options = {}): Response {
  return send("GET", url, options);
}

export function post(url: string, options: Options = {}): Response {
  return send("POST", url, options);
}
