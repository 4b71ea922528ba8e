//! The probe of the guest library for Rust: does what its payload's attributes tell it.

use keelstone::{ai, clock, config, events, http, kv, log, notify, random, secrets, services};
use keelstone::{AccessRequest, Decision, EventView, Failure, Filtered, HostError, Json, UserDraft};

pub fn user_creating(mut draft: UserDraft) -> Result<Filtered<UserDraft>, Failure> {
    let mut said = Json::list();
    match draft.attributes.get("do").and_then(Json::as_str).unwrap_or("") {
        "settings" => settings(&mut said)?,
        "kv" => store(&mut said)?,
        "refused" => refused(&mut said),
        "fetch" => fetch(&mut said)?,
        "more" => more(&mut said)?,
        "emit" => {
            let mut data = Json::object();
            data.set("n", 7);
            events::emit("probe.tried", &data)?;
        }
        "insist" => kv::set("a", "1")?,
        "fail" => return Err("cannot".into()),
        "crash" => panic!("on purpose"),
        "log" => {
            log::debug("d");
            log::info("i \u{e9}\u{1F600}");
            log::warn("w");
            log::error("e");
        }
        _ => {}
    }
    draft.attributes.set("said", said);
    Ok(Filtered::Change(draft))
}

fn settings(said: &mut Json) -> Result<(), HostError> {
    said.push(config::text("text", "none")?);
    said.push(config::number("number", -1.0)?);
    said.push(config::flag("flag", false)?);
    for item in config::list("list")? {
        said.push(item);
    }
    Ok(())
}

fn store(said: &mut Json) -> Result<(), HostError> {
    kv::set("b", "2")?;
    kv::set("a", "1 \u{e9}\u{1F600}")?;
    kv::set("c", "")?;
    said.push(kv::get("c")?.as_deref() == Some(""));
    kv::delete("c")?;
    said.push(kv::get("c")?.is_none());
    for key in kv::keys("", 10)? {
        said.push(kv::get(&key)?.unwrap_or_default());
    }
    Ok(())
}

fn code<T>(outcome: Result<T, HostError>, otherwise: &str) -> String {
    outcome.map(|_| otherwise.to_string()).unwrap_or_else(|error| error.code)
}

fn refused(said: &mut Json) {
    said.push(code(kv::get("a"), "got"));
    said.push(code(kv::keys("", 1), "listed"));
    said.push(code(events::emit("probe.tried", &Json::object()), "emitted"));
    said.push(code(http::send(&http::Request::new("GET", "https://example.com/")), "sent"));
    said.push(code(config::get("text"), "asked"));
}

fn fetch(said: &mut Json) -> Result<(), HostError> {
    let mut body = Json::object();
    body.set("x", 1);
    let url = config::text("target", "")? + "echo";
    let answer = http::send(&http::Request::new("POST", &url).json(&body).header("x-probe", "yes"))?;
    said.push(answer.status as i64).push(answer.ok()).push(answer.body.as_str());
    said.push(answer.header("X-Answer").unwrap_or("none"));
    Ok(())
}

fn more(said: &mut Json) -> Result<(), HostError> {
    kv::set_many(&[("x", "1"), ("y", "")])?;
    for value in kv::get_many(&["x", "nope", "y"])? {
        said.push(value.map(Json::from).unwrap_or(Json::Null));
    }
    said.push(kv::set_if("x", "2", Some("1"))?).push(kv::set_if("x", "3", None)?);
    kv::set_for("t", "gone", 60)?;
    said.push(kv::get("t")?.unwrap_or_default());
    said.push(clock::now()? > 1_700_000_000_000);
    let before = clock::monotonic()?;
    said.push(clock::monotonic()? >= before);
    said.push(random::number()? != random::number()?);
    said.push(random::hex(8)?.len() == 16);
    said.push(!secrets::placeholder("token")?.is_empty());
    let prompt = ai::Prompt { model: "small", system: Some("Be brief."), text: "What?", max_tokens: 50 };
    let answer = ai::complete(&prompt)?;
    said.push(answer.text).push(answer.model).push(answer.tokens as i64);
    said.push(notify::send("email", "ann@example.com", "Hi", "Body \u{e9}")?);
    let mut query = Json::object();
    query.set("q", "\u{e9}");
    let found = services::call("acme/other", "lookup", &query)?;
    said.push(found.get("found").and_then(Json::as_str).unwrap_or(""));
    said.push(code(ai::complete(&ai::Prompt { model: "large", ..prompt }), "answered"));
    Ok(())
}

pub fn access_deciding(request: AccessRequest) -> Result<Decision, Failure> {
    Ok(match request.action.as_str() {
        "allow" => Decision::Allow(format!("{}/{}", request.principal, request.roles.join(","))),
        "deny" => Decision::Deny("no".into()),
        _ => Decision::Abstain,
    })
}

pub fn event_received(event: EventView) -> Result<(), Failure> {
    if event.data.get("fail").is_some() {
        return Err("later".into());
    }
    log::info(format!("{} {} {}", event.r#type, event.version, event.tenant));
    Ok(())
}
