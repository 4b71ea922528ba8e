/** E-mail addresses: just enough of RFC 5321 to tell them apart and write them alike. */
import { asciiLower } from "keelstone";

export class Address {
  private constructor(
    public local: string,
    public domain: string,
  ) {}

  /** The address in `text`, trimmed, its domain in lower case; null if it is not one. */
  static parse(text: string): Address | null {
    const trimmed = text.trim();
    const at = trimmed.lastIndexOf("@");
    if (at < 1) return null;
    const local = trimmed.substring(0, at);
    // A trailing dot names the same domain, and would otherwise slip past every list.
    let domain = asciiLower(trimmed.substring(at + 1));
    if (domain.endsWith(".")) domain = domain.substring(0, domain.length - 1);
    if (!isDomain(domain) || hasSpace(local) || (local.includes("@") && !local.startsWith('"'))) return null;
    return new Address(local, domain);
  }

  get isGmail(): bool {
    return this.domain == "gmail.com" || this.domain == "googlemail.com";
  }

  /** Drop `+tag`, unless nothing would be left. */
  dropTag(): void {
    const plus = this.local.indexOf("+");
    if (plus > 0 && !this.local.startsWith('"')) this.local = this.local.substring(0, plus);
  }

  /** Gmail ignores dots, tags and case, and has two names for one domain. */
  foldGmail(): void {
    this.dropTag();
    this.local = asciiLower(this.local.replaceAll(".", ""));
    this.domain = "gmail.com";
  }

  toString(): string {
    return this.local + "@" + this.domain;
  }
}

/** Whether `domain` or a domain above it is in `list`. */
export function within(domain: string, list: string[]): bool {
  for (let i = 0; i < list.length; i++) {
    const listed = asciiLower(list[i].trim());
    if (domain == listed || (listed.length > 0 && domain.endsWith("." + listed))) return true;
  }
  return false;
}

function isDomain(text: string): bool {
  const labels = text.split(".");
  if (labels.length < 2 || text.length > 253) return false;
  for (let i = 0; i < labels.length; i++) {
    const label = labels[i];
    if (label.length == 0 || label.length > 63 || label.startsWith("-") || label.endsWith("-")) return false;
    for (let j = 0; j < label.length; j++) {
      const unit = label.charCodeAt(j);
      const letter = (unit >= 0x61 && unit <= 0x7a) || unit > 0x7f;
      if (!letter && !(unit >= 0x30 && unit <= 0x39) && unit != 0x2d) return false;
    }
  }
  return true;
}

function hasSpace(text: string): bool {
  for (let i = 0; i < text.length; i++) {
    if (text.charCodeAt(i) <= 0x20) return true;
  }
  return false;
}
