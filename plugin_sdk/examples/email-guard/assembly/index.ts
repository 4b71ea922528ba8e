/** Guards both doors through which an address can enter: registration and a change of profile. */
import { config, FilterReply, log, UserDraft } from "keelstone";
import { Address, within } from "./address";

export function user_creating(draft: UserDraft): FilterReply {
  return guard(draft);
}

export function user_updating(draft: UserDraft): FilterReply {
  return guard(draft);
}

function guard(draft: UserDraft): FilterReply {
  const address = Address.parse(draft.email);
  if (address === null) {
    return FilterReply.reject("This is not an e-mail address: it needs one @ with something before and a domain after it.");
  }
  if (refused(address.domain)) {
    log.info("refused an address at " + address.domain);
    const message = config.text("message", "Addresses at {domain} are not accepted here.");
    return FilterReply.reject(message.replaceAll("{domain}", address.domain));
  }
  if (config.flag("strip_tags", false)) address.dropTag();
  if (config.flag("fold_gmail", false) && address.isGmail) address.foldGmail();

  const email = address.toString();
  if (email == draft.email) return FilterReply.keep();
  draft.email = email;
  return FilterReply.change(draft);
}

function refused(domain: string): bool {
  if (within(domain, config.list("allowed_domains"))) return false;
  return config.flag("only_allowed", false) || within(domain, config.list("refused_domains"));
}
