//! Counts the vowels in the names of new people, and keeps the sum of all.

use keelstone::{config, kv, log, Failure, Filtered, Json, UserDraft};

pub fn user_creating(mut draft: UserDraft) -> Result<Filtered<UserDraft>, Failure> {
    let vowels = config::text("vowels", "aeiouAEIOU")?;
    let count = draft.name.chars().filter(|letter| vowels.contains(*letter)).count() as i64;
    let total = kv::get("total")?.and_then(|text| text.parse().ok()).unwrap_or(0) + count;
    kv::set("total", &total.to_string())?;
    log::info(format!("counted {count}"));

    let mut report = Json::object();
    report.set("count", count).set("total", total).set("letters", vowels);
    draft.attributes.set("vowels", report);
    Ok(Filtered::Change(draft))
}
