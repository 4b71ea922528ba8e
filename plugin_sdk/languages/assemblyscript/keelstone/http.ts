/** Capability `http`: outgoing requests to the hosts in the manifest. */
import { address, area, failureAt, textAt } from "./abi";
import { Outcome } from "./outcome";
import { asciiLower } from "./text";

// @ts-ignore: decorator
@external("keelstone:plugin/http@1.1.0", "send")
declare function hostSend(
  method: usize,
  methodLength: u32,
  url: usize,
  urlLength: u32,
  headers: usize,
  headerCount: u32,
  hasBody: i32,
  body: usize,
  bodyLength: u32,
  out: usize,
): void;

export class Header {
  constructor(
    public name: string,
    public value: string,
  ) {}
}

export class HttpRequest {
  headers: Header[] = [];
  body: string | null = null;

  constructor(
    public method: string,
    public url: string,
  ) {}

  header(name: string, value: string): HttpRequest {
    this.headers.push(new Header(name, value));
    return this;
  }

  json(body: string): HttpRequest {
    this.body = body;
    return this.header("content-type", "application/json");
  }
}

export class HttpResponse {
  constructor(
    public status: u16,
    public headers: Header[],
    public body: string,
  ) {}

  /** True for the statuses 200 to 299. */
  get ok(): bool {
    return this.status >= 200 && this.status < 300;
  }

  /** The first header of that name (any case), or null. */
  header(name: string): string | null {
    const wanted = asciiLower(name);
    for (let i = 0; i < this.headers.length; i++) {
      if (asciiLower(this.headers[i].name) == wanted) return this.headers[i].value;
    }
    return null;
  }
}

export namespace http {
  /** The answer, whatever its status; or why the request could not be made. */
  export function send(request: HttpRequest): Outcome<HttpResponse> {
    const count = request.headers.length;
    const headers = area(16 * count);
    for (let i = 0; i < count; i++) {
      const header = request.headers[i];
      const at = headers + 16 * i;
      store<u32>(at, <u32>address(header.name));
      store<u32>(at, <u32>header.name.length, 4);
      store<u32>(at, <u32>address(header.value), 8);
      store<u32>(at, <u32>header.value.length, 12);
    }
    const body = request.body;
    const sent = body === null ? "" : body;
    const out = area(24);
    hostSend(
      address(request.method),
      request.method.length,
      address(request.url),
      request.url.length,
      headers,
      count,
      body === null ? 0 : 1,
      address(sent),
      sent.length,
      out,
    );
    const received = new Array<Header>();
    if (load<u8>(out)) return Outcome.failure<HttpResponse>(failureAt(out + 4), new HttpResponse(0, received, ""));
    const first = <usize>load<u32>(out, 8);
    const total = load<u32>(out, 12);
    for (let i: u32 = 0; i < total; i++) received.push(new Header(textAt(first + 16 * i), textAt(first + 16 * i + 8)));
    return Outcome.of<HttpResponse>(new HttpResponse(load<u16>(out, 4), received, textAt(out + 16)));
  }
}
