/** Capability `secrets`: secrets that an admin keeps for this plugin, to be sent and never to be read. */
import * as host from "keelstone:plugin/secrets@1.1.0";
import { asked } from "./host";

/** Text that stands for the secret in this call's requests: the host puts the value in its place. */
export function placeholder(name: string): string {
  return asked("secrets.placeholder", () => host.placeholder(name));
}
