/**
 * JSON (RFC 8259) as a small tree of values.
 *
 * Objects keep the order of their keys. Numbers keep their text, so that what is passed through
 * comes out as it went in, whatever its size or precision.
 */

export enum JsonKind {
  Null,
  Bool,
  Number,
  Text,
  List,
  Object,
}

/** Deeper nesting than this is refused: a payload must not be able to exhaust the stack. */
const MAX_DEPTH = 64;

export class Json {
  private flag: bool = false;
  /** Text of a string, or of a number. */
  private raw: string = "";
  private names: string[] = [];
  private items: Json[] = [];

  private constructor(public readonly kind: JsonKind) {}

  static null(): Json {
    return new Json(JsonKind.Null);
  }

  static bool(value: bool): Json {
    const made = new Json(JsonKind.Bool);
    made.flag = value;
    return made;
  }

  static integer(value: i64): Json {
    return Json.numeral(value.toString());
  }

  static number(value: f64): Json {
    return isFinite(value) ? Json.numeral(value.toString()) : Json.null();
  }

  static text(value: string): Json {
    const made = new Json(JsonKind.Text);
    made.raw = value;
    return made;
  }

  static list(): Json {
    return new Json(JsonKind.List);
  }

  static ofTexts(values: string[]): Json {
    const made = Json.list();
    for (let i = 0; i < values.length; i++) made.push(Json.text(values[i]));
    return made;
  }

  static object(): Json {
    return new Json(JsonKind.Object);
  }

  /** A number by its JSON text. */
  static numeral(raw: string): Json {
    const made = new Json(JsonKind.Number);
    made.raw = raw;
    return made;
  }

  /** The value in `source`, or null if it is not JSON. */
  static parse(source: string): Json | null {
    return new Reader(source).document();
  }

  asBool(): bool {
    return this.flag;
  }

  asText(): string {
    return this.raw;
  }

  asNumber(): f64 {
    return this.kind == JsonKind.Number ? parseFloat(this.raw) : NaN;
  }

  asInteger(): i64 {
    return this.kind == JsonKind.Number ? I64.parseInt(this.raw) : 0;
  }

  /** The strings of a list; other items are left out. */
  asTexts(): string[] {
    const texts = new Array<string>();
    for (let i = 0; i < this.items.length; i++) {
      if (this.items[i].kind == JsonKind.Text) texts.push(this.items[i].raw);
    }
    return texts;
  }

  /** How many items a list, or members an object, has. */
  get length(): i32 {
    return this.items.length;
  }

  at(index: i32): Json {
    return this.items[index];
  }

  /** The keys of an object, in order. */
  keys(): string[] {
    return this.names.slice();
  }

  get(name: string): Json | null {
    const index = this.names.indexOf(name);
    return index < 0 ? null : this.items[index];
  }

  has(name: string): bool {
    return this.names.includes(name);
  }

  /** The string member `name`. */
  text(name: string, otherwise: string = ""): string {
    const found = this.get(name);
    return found !== null && found.kind == JsonKind.Text ? found.raw : otherwise;
  }

  /** The value at a dotted path such as `user.attributes.role`, or null. */
  find(path: string): Json | null {
    let value: Json | null = this;
    const steps = path.split(".");
    for (let i = 0; i < steps.length && value !== null; i++) value = value.get(steps[i]);
    return value;
  }

  push(value: Json): Json {
    this.items.push(value);
    return this;
  }

  set(name: string, value: Json): Json {
    const index = this.names.indexOf(name);
    if (index < 0) {
      this.names.push(name);
      this.items.push(value);
    } else {
      this.items[index] = value;
    }
    return this;
  }

  remove(name: string): void {
    const index = this.names.indexOf(name);
    if (index < 0) return;
    this.names.splice(index, 1);
    this.items.splice(index, 1);
  }

  /** The value as people read it: text without quotes, everything else as JSON. */
  plain(): string {
    return this.kind == JsonKind.Text ? this.raw : this.toString();
  }

  toString(): string {
    const parts = new Array<string>();
    this.write(parts);
    return parts.join("");
  }

  private write(parts: string[]): void {
    switch (this.kind) {
      case JsonKind.Null: {
        parts.push("null");
        break;
      }
      case JsonKind.Bool: {
        parts.push(this.flag ? "true" : "false");
        break;
      }
      case JsonKind.Number: {
        parts.push(this.raw);
        break;
      }
      case JsonKind.Text: {
        quote(this.raw, parts);
        break;
      }
      default: {
        const named = this.kind == JsonKind.Object;
        parts.push(named ? "{" : "[");
        for (let i = 0; i < this.items.length; i++) {
          if (i > 0) parts.push(",");
          if (named) {
            quote(this.names[i], parts);
            parts.push(":");
          }
          this.items[i].write(parts);
        }
        parts.push(named ? "}" : "]");
      }
    }
  }
}

/** `value` as a JSON string. Lone surrogates, which UTF-8 cannot carry, are escaped. */
function quote(value: string, parts: string[]): void {
  parts.push('"');
  let begin = 0;
  for (let i = 0; i < value.length; i++) {
    const unit = value.charCodeAt(i);
    if (unit >= 0x20 && unit != 0x22 && unit != 0x5c && (unit < 0xd800 || unit > 0xdfff)) continue;
    if (unit >= 0xd800 && unit < 0xdc00 && i + 1 < value.length) {
      const next = value.charCodeAt(i + 1);
      if (next >= 0xdc00 && next <= 0xdfff) {
        i++;
        continue;
      }
    }
    parts.push(value.substring(begin, i));
    if (unit == 0x22) parts.push('\\"');
    else if (unit == 0x5c) parts.push("\\\\");
    else if (unit == 0x0a) parts.push("\\n");
    else parts.push("\\u" + hex(unit >> 12) + hex(unit >> 8) + hex(unit >> 4) + hex(unit));
    begin = i + 1;
  }
  parts.push(value.substring(begin));
  parts.push('"');
}

function hex(value: i32): string {
  const digit = value & 15;
  return String.fromCharCode(digit < 10 ? 0x30 + digit : 0x57 + digit);
}

/** A strict recursive-descent reader. After `broken` is set, nothing it returns counts. */
class Reader {
  private at: i32 = 0;
  private depth: i32 = 0;
  private broken: bool = false;

  constructor(private source: string) {}

  document(): Json | null {
    const value = this.value();
    this.space();
    return this.broken || this.at != this.source.length ? null : value;
  }

  private peek(): i32 {
    return this.at < this.source.length ? this.source.charCodeAt(this.at) : -1;
  }

  private space(): void {
    for (;;) {
      const unit = this.peek();
      if (unit != 0x20 && unit != 0x0a && unit != 0x0d && unit != 0x09) return;
      this.at++;
    }
  }

  private take(unit: i32): bool {
    this.space();
    if (this.peek() != unit) return false;
    this.at++;
    return true;
  }

  private fail(): Json {
    this.broken = true;
    return Json.null();
  }

  private value(): Json {
    this.space();
    const unit = this.peek();
    if (unit == 0x22) return Json.text(this.string());
    if (unit == 0x7b || unit == 0x5b) {
      if (++this.depth > MAX_DEPTH) return this.fail();
      this.at++;
      const made = unit == 0x7b ? this.object() : this.list();
      this.depth--;
      return made;
    }
    if (unit == 0x74) return this.word("true", Json.bool(true));
    if (unit == 0x66) return this.word("false", Json.bool(false));
    if (unit == 0x6e) return this.word("null", Json.null());
    return this.number();
  }

  private word(expected: string, value: Json): Json {
    const end = this.at + expected.length;
    if (this.source.substring(this.at, end) != expected) return this.fail();
    this.at = end;
    return value;
  }

  private list(): Json {
    const made = Json.list();
    if (this.take(0x5d)) return made;
    do {
      made.push(this.value());
    } while (!this.broken && this.take(0x2c));
    return this.take(0x5d) ? made : this.fail();
  }

  private object(): Json {
    const made = Json.object();
    if (this.take(0x7d)) return made;
    do {
      this.space();
      if (this.peek() != 0x22) return this.fail();
      const name = this.string();
      if (!this.take(0x3a)) return this.fail();
      made.set(name, this.value());
    } while (!this.broken && this.take(0x2c));
    return this.take(0x7d) ? made : this.fail();
  }

  private digits(): bool {
    const begin = this.at;
    for (let unit = this.peek(); unit >= 0x30 && unit <= 0x39; unit = this.peek()) this.at++;
    return this.at > begin;
  }

  private number(): Json {
    const begin = this.at;
    if (this.peek() == 0x2d) this.at++;
    const zero = this.peek() == 0x30;
    const whole = this.at;
    if (!this.digits() || (zero && this.at > whole + 1)) return this.fail();
    if (this.peek() == 0x2e) {
      this.at++;
      if (!this.digits()) return this.fail();
    }
    if ((this.peek() | 0x20) == 0x65) {
      this.at++;
      if (this.peek() == 0x2b || this.peek() == 0x2d) this.at++;
      if (!this.digits()) return this.fail();
    }
    return Json.numeral(this.source.substring(begin, this.at));
  }

  private string(): string {
    let begin = ++this.at;
    let parts: string[] | null = null;
    let unit = this.peek();
    while (unit != 0x22) {
      if (unit < 0x20) {
        this.broken = true;
        return "";
      }
      if (unit == 0x5c) {
        if (parts === null) parts = new Array<string>();
        parts.push(this.source.substring(begin, this.at++));
        parts.push(String.fromCharCode(this.escape()));
        begin = this.at;
      } else {
        this.at++;
      }
      unit = this.peek();
    }
    const last = this.source.substring(begin, this.at++);
    if (parts === null) return last;
    parts.push(last);
    return parts.join("");
  }

  private escape(): i32 {
    const unit = this.peek();
    this.at++;
    switch (unit) {
      case 0x22:
      case 0x2f:
      case 0x5c:
        return unit;
      case 0x62:
        return 0x08;
      case 0x66:
        return 0x0c;
      case 0x6e:
        return 0x0a;
      case 0x72:
        return 0x0d;
      case 0x74:
        return 0x09;
      case 0x75: {
        let code = 0;
        for (let i = 0; i < 4; i++) {
          const digit = this.peek() | 0x20;
          const value = digit >= 0x61 ? digit - 0x57 : digit - 0x30;
          if (this.peek() < 0x30 || value < 0 || value > 15 || (digit > 0x39 && digit < 0x61)) this.broken = true;
          code = (code << 4) | (value & 15);
          this.at++;
        }
        return code;
      }
      default: {
        this.broken = true;
        return 0x20;
      }
    }
  }
}
