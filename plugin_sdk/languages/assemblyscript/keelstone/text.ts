/** Text helpers that AssemblyScript's own library has only with tables of several KiB. */

/** `text` with the letters A to Z in lower case: enough for domains, header names and codes. */
export function asciiLower(text: string): string {
  const units = text.length;
  const made = changetype<string>(__new(units << 1, idof<string>()));
  for (let i = 0; i < units; i++) {
    const unit = text.charCodeAt(i);
    store<u16>(changetype<usize>(made) + (i << 1), unit >= 0x41 && unit <= 0x5a ? unit | 0x20 : unit);
  }
  return made;
}
