/**
 * The component model's canonical ABI for the few shapes of keelstone.wit.
 *
 * Source: https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md
 * The component is encoded with UTF-16 strings, AssemblyScript's own form: the host transcodes, and
 * a string that comes in is already an AssemblyScript string, without a copy.
 *
 * Nothing is ever freed and there is no `cabi_post_handle`: one instance serves one call, and its
 * memory goes back to the host whole.
 */
import { Failure } from "./outcome";

/** Alignment with which the host asks for UTF-16 text; everything else it asks for has 4 or more. */
const TEXT_ALIGNMENT: usize = 2;

/** The host's allocator. Text gets an AssemblyScript string's header in front of it. */
export function cabi_realloc(old: usize, oldSize: usize, alignment: usize, size: usize): usize {
  if (size == 0) return alignment;
  if (alignment == TEXT_ALIGNMENT) {
    return old && oldSize ? __renew(old, size) : __new(size, idof<string>());
  }
  const fresh = heap.alloc(size);
  if (old && oldSize) memory.copy(fresh, old, min(oldSize, size));
  return fresh;
}

/** The string that the host put at `address`. */
export function text(address: usize, units: u32): string {
  return units == 0 ? "" : changetype<string>(address);
}

/** The string whose address and length are stored at `at`. */
export function textAt(at: usize): string {
  return text(<usize>load<u32>(at), load<u32>(at, 4));
}

/** Where the text of `value` lies, for passing to the host. */
// @ts-ignore: decorator
@inline
export function address(value: string): usize {
  return changetype<usize>(value);
}

/** Store where `value` lies and how long it is, as a list's element or a record's field. */
export function put(at: usize, value: string): void {
  store<u32>(at, <u32>address(value));
  store<u32>(at, <u32>value.length, 4);
}

/** Zeroed memory for a result that the host writes. */
export function area(bytes: usize): usize {
  const at = heap.alloc(bytes);
  memory.fill(at, 0, bytes);
  return at;
}

/** The `failure` record stored at `at`. */
export function failureAt(at: usize): Failure {
  return new Failure(textAt(at), textAt(at + 8));
}

/** A `result<string, string>` for `handle`: an answer, or what failed. */
export function result(ok: bool, value: string): usize {
  const at = area(12);
  store<u8>(at, ok ? 0 : 1);
  store<u32>(at, <u32>address(value), 4);
  store<u32>(at, <u32>value.length, 8);
  return at;
}
