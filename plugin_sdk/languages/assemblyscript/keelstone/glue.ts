/** What the generated entry module needs, and plugins do not. */
export { cabi_realloc, result, text } from "./abi";
export { Json, JsonKind } from "./json";
