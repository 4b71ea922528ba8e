/** Capability `log`: lines for the plugin's log, seen by the tenant's admin and the operator. */
import { write } from "keelstone:plugin/log@1.1.0";

export function debug(message: string): void {
  write("debug", message);
}

export function info(message: string): void {
  write("info", message);
}

export function warn(message: string): void {
  write("warn", message);
}

export function error(message: string): void {
  write("error", message);
}
