/** Capability `log`: lines for the plugin's log. */
import { address } from "./abi";

// @ts-ignore: decorator
@external("keelstone:plugin/log@1.1.0", "write")
declare function write(level: i32, message: usize, length: u32): void;

export namespace log {
  export function debug(message: string): void {
    write(0, address(message), message.length);
  }

  export function info(message: string): void {
    write(1, address(message), message.length);
  }

  export function warn(message: string): void {
    write(2, address(message), message.length);
  }

  export function error(message: string): void {
    write(3, address(message), message.length);
  }
}
