//! Host calls of keelstone.wit, by capability.

#![allow(clippy::too_many_arguments)]

use crate::abi::{asked, HostError, List, Maybe, Outcome, Text};
use crate::json::Json;

/// Lines for the plugin's log.
pub mod log {
    #[link(wasm_import_module = "keelstone:plugin/log@1.1.0")]
    extern "C" {
        fn write(level: u32, at: *const u8, size: usize);
    }

    fn line(level: u32, text: &str) {
        unsafe { write(level, text.as_ptr(), text.len()) }
    }

    pub fn debug(text: impl AsRef<str>) {
        line(0, text.as_ref())
    }

    pub fn info(text: impl AsRef<str>) {
        line(1, text.as_ref())
    }

    pub fn warn(text: impl AsRef<str>) {
        line(2, text.as_ref())
    }

    pub fn error(text: impl AsRef<str>) {
        line(3, text.as_ref())
    }
}

/// The tenant's settings for this plugin, after defaults.
pub mod config {
    use super::*;

    mod host {
        use super::*;
        #[link(wasm_import_module = "keelstone:plugin/config@1.1.0")]
        extern "C" {
            pub fn get(key: *const u8, size: usize, out: *mut Outcome<Maybe>);
        }
    }

    /// One setting, `None` if it is not set.
    pub fn get(key: &str) -> Result<Option<Json>, HostError> {
        let found = asked("config.get", |out| unsafe { host::get(key.as_ptr(), key.len(), out) })?;
        Ok(found.own().and_then(|text| Json::parse(&text)))
    }

    pub fn text(key: &str, otherwise: &str) -> Result<String, HostError> {
        Ok(get(key)?.and_then(|value| value.as_str().map(str::to_string)).unwrap_or_else(|| otherwise.to_string()))
    }

    pub fn integer(key: &str, otherwise: i64) -> Result<i64, HostError> {
        Ok(get(key)?.and_then(|value| value.as_i64()).unwrap_or(otherwise))
    }

    pub fn number(key: &str, otherwise: f64) -> Result<f64, HostError> {
        Ok(get(key)?.and_then(|value| value.as_f64()).unwrap_or(otherwise))
    }

    pub fn flag(key: &str, otherwise: bool) -> Result<bool, HostError> {
        Ok(get(key)?.and_then(|value| value.as_bool()).unwrap_or(otherwise))
    }

    /// A setting that is a list of strings; empty if it is not set.
    pub fn list(key: &str) -> Result<Vec<String>, HostError> {
        Ok(get(key)?.map(|value| value.texts()).unwrap_or_default())
    }
}

/// Small durable state, private to this plugin and tenant. The writes of one call are saved together,
/// and only if the call succeeds.
pub mod kv {
    use super::*;

    mod host {
        use super::*;
        #[link(wasm_import_module = "keelstone:plugin/kv@1.1.0")]
        extern "C" {
            pub fn get(key: *const u8, size: usize, out: *mut Outcome<Maybe>);
            pub fn set(key: *const u8, size: usize, value: *const u8, value_size: usize, out: *mut Outcome<()>);
            pub fn delete(key: *const u8, size: usize, out: *mut Outcome<()>);
            #[link_name = "list-keys"]
            pub fn list_keys(prefix: *const u8, size: usize, limit: u32, out: *mut Outcome<List<Text>>);
            #[link_name = "set-if"]
            pub fn set_if(
                key: *const u8,
                size: usize,
                value: *const u8,
                value_size: usize,
                some: u32,
                expected: *const u8,
                expected_size: usize,
                out: *mut Outcome<u8>,
            );
            #[link_name = "set-for"]
            pub fn set_for(
                key: *const u8,
                size: usize,
                value: *const u8,
                value_size: usize,
                seconds: u32,
                out: *mut Outcome<()>,
            );
            #[link_name = "get-many"]
            pub fn get_many(keys: *const Text, count: usize, out: *mut Outcome<List<Maybe>>);
            #[link_name = "set-many"]
            pub fn set_many(entries: *const [Text; 2], count: usize, out: *mut Outcome<()>);
        }
    }

    /// The value of a key.
    pub fn get(key: &str) -> Result<Option<String>, HostError> {
        Ok(asked("kv.get", |out| unsafe { host::get(key.as_ptr(), key.len(), out) })?.own())
    }

    pub fn set(key: &str, value: &str) -> Result<(), HostError> {
        asked("kv.set", |out| unsafe { host::set(key.as_ptr(), key.len(), value.as_ptr(), value.len(), out) })
    }

    pub fn delete(key: &str) -> Result<(), HostError> {
        asked("kv.delete", |out| unsafe { host::delete(key.as_ptr(), key.len(), out) })
    }

    /// Keys that begin with `prefix`, in order, at most `limit`.
    pub fn keys(prefix: &str, limit: u32) -> Result<Vec<String>, HostError> {
        let found =
            asked("kv.list-keys", |out| unsafe { host::list_keys(prefix.as_ptr(), prefix.len(), limit, out) })?;
        Ok(found.own().into_iter().map(Text::own).collect())
    }

    /// Write only if the key has the value `expected` (`None`: there is no such key). False if not.
    pub fn set_if(key: &str, value: &str, expected: Option<&str>) -> Result<bool, HostError> {
        let text = expected.unwrap_or("");
        let done = asked("kv.set-if", |out| unsafe {
            host::set_if(
                key.as_ptr(),
                key.len(),
                value.as_ptr(),
                value.len(),
                expected.is_some() as u32,
                text.as_ptr(),
                text.len(),
                out,
            )
        })?;
        Ok(done != 0)
    }

    /// Write a value that is gone after so many seconds.
    pub fn set_for(key: &str, value: &str, seconds: u32) -> Result<(), HostError> {
        asked("kv.set-for", |out| unsafe {
            host::set_for(key.as_ptr(), key.len(), value.as_ptr(), value.len(), seconds, out)
        })
    }

    /// The values of several keys, in that order.
    pub fn get_many(keys: &[&str]) -> Result<Vec<Option<String>>, HostError> {
        let texts: Vec<Text> = keys.iter().map(|key| Text::of(key)).collect();
        let found = asked("kv.get-many", |out| unsafe { host::get_many(texts.as_ptr(), texts.len(), out) })?;
        Ok(found.own().into_iter().map(Maybe::own).collect())
    }

    /// Write several values: all of them, or none if one is refused.
    pub fn set_many(entries: &[(&str, &str)]) -> Result<(), HostError> {
        let pairs: Vec<[Text; 2]> = entries.iter().map(|(key, value)| [Text::of(key), Text::of(value)]).collect();
        asked("kv.set-many", |out| unsafe { host::set_many(pairs.as_ptr(), pairs.len(), out) })
    }
}

/// Outgoing requests to the hosts in the manifest.
pub mod http {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy)]
    pub(super) struct Received {
        status: u16,
        headers: List<[Text; 2]>,
        body: Text,
    }

    mod host {
        use super::*;
        #[link(wasm_import_module = "keelstone:plugin/http@1.1.0")]
        extern "C" {
            pub(super) fn send(
                method: *const u8,
                method_size: usize,
                url: *const u8,
                url_size: usize,
                headers: *const [Text; 2],
                header_count: usize,
                has_body: u32,
                body: *const u8,
                body_size: usize,
                out: *mut Outcome<Received>,
            );
        }
    }

    #[derive(Clone, Debug, Default)]
    pub struct Request {
        pub method: String,
        pub url: String,
        pub headers: Vec<(String, String)>,
        pub body: Option<String>,
    }

    impl Request {
        pub fn new(method: &str, url: &str) -> Request {
            Request { method: method.to_string(), url: url.to_string(), ..Request::default() }
        }

        pub fn header(mut self, name: &str, value: &str) -> Request {
            self.headers.push((name.to_string(), value.to_string()));
            self
        }

        pub fn json(mut self, body: &Json) -> Request {
            self.body = Some(body.to_string());
            self.header("content-type", "application/json")
        }
    }

    #[derive(Clone, Debug)]
    pub struct Response {
        pub status: u16,
        pub headers: Vec<(String, String)>,
        pub body: String,
    }

    impl Response {
        /// True for the statuses 200 to 299.
        pub fn ok(&self) -> bool {
            (200..300).contains(&self.status)
        }

        /// The first header of that name, in any case.
        pub fn header(&self, name: &str) -> Option<&str> {
            self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
        }
    }

    /// The answer, whatever its status.
    pub fn send(request: &Request) -> Result<Response, HostError> {
        let headers: Vec<[Text; 2]> =
            request.headers.iter().map(|(name, value)| [Text::of(name), Text::of(value)]).collect();
        let body = request.body.as_deref().unwrap_or("");
        let received = asked("http.send", |out| unsafe {
            host::send(
                request.method.as_ptr(),
                request.method.len(),
                request.url.as_ptr(),
                request.url.len(),
                headers.as_ptr(),
                headers.len(),
                request.body.is_some() as u32,
                body.as_ptr(),
                body.len(),
                out,
            )
        })?;
        Ok(Response {
            status: received.status,
            headers: received.headers.own().into_iter().map(|[name, value]| (name.own(), value.own())).collect(),
            body: received.body.own(),
        })
    }
}

/// Events of the types that the manifest declares.
pub mod events {
    use super::*;

    mod host {
        use super::*;
        #[link(wasm_import_module = "keelstone:plugin/events@1.1.0")]
        extern "C" {
            pub fn emit(kind: *const u8, kind_size: usize, data: *const u8, size: usize, out: *mut Outcome<()>);
        }
    }

    /// Emit one event; it is saved if the call succeeds.
    pub fn emit(event_type: &str, data: &Json) -> Result<(), HostError> {
        let data = data.to_string();
        asked("events.emit", |out| unsafe {
            host::emit(event_type.as_ptr(), event_type.len(), data.as_ptr(), data.len(), out)
        })
    }
}

/// Secrets that an admin keeps for this plugin: to be sent, never to be read.
pub mod secrets {
    use super::*;

    mod host {
        use super::*;
        #[link(wasm_import_module = "keelstone:plugin/secrets@1.1.0")]
        extern "C" {
            pub fn placeholder(name: *const u8, size: usize, out: *mut Outcome<Text>);
        }
    }

    /// Text that stands for the secret in this call's requests: the host puts the value in its place.
    pub fn placeholder(name: &str) -> Result<String, HostError> {
        Ok(asked("secrets.placeholder", |out| unsafe { host::placeholder(name.as_ptr(), name.len(), out) })?.own())
    }
}

/// Language models, through the platform's own providers.
pub mod ai {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy)]
    pub(super) struct Answered {
        text: Text,
        model: Text,
        tokens: u32,
    }

    mod host {
        use super::*;
        #[link(wasm_import_module = "keelstone:plugin/ai@1.1.0")]
        extern "C" {
            pub(super) fn complete(
                model: *const u8,
                model_size: usize,
                has_system: u32,
                system: *const u8,
                system_size: usize,
                text: *const u8,
                text_size: usize,
                max_tokens: u32,
                out: *mut Outcome<Answered>,
            );
        }
    }

    #[derive(Clone, Debug)]
    pub struct Prompt<'a> {
        pub model: &'a str,
        pub system: Option<&'a str>,
        pub text: &'a str,
        pub max_tokens: u32,
    }

    /// `tokens` counts both ways.
    #[derive(Clone, Debug)]
    pub struct Completion {
        pub text: String,
        pub model: String,
        pub tokens: u32,
    }

    /// What the model answers.
    pub fn complete(prompt: &Prompt<'_>) -> Result<Completion, HostError> {
        let system = prompt.system.unwrap_or("");
        let found = asked("ai.complete", |out| unsafe {
            host::complete(
                prompt.model.as_ptr(),
                prompt.model.len(),
                prompt.system.is_some() as u32,
                system.as_ptr(),
                system.len(),
                prompt.text.as_ptr(),
                prompt.text.len(),
                prompt.max_tokens,
                out,
            )
        })?;
        Ok(Completion { text: found.text.own(), model: found.model.own(), tokens: found.tokens })
    }
}

/// Messages to people, over the channels that the tenant has set up.
pub mod notify {
    use super::*;

    mod host {
        use super::*;
        #[link(wasm_import_module = "keelstone:plugin/notify@1.1.0")]
        extern "C" {
            pub fn send(
                channel: *const u8,
                channel_size: usize,
                recipient: *const u8,
                recipient_size: usize,
                subject: *const u8,
                subject_size: usize,
                body: *const u8,
                body_size: usize,
                out: *mut Outcome<Text>,
            );
        }
    }

    /// Tell a person something; the message's id once it is accepted for delivery.
    pub fn send(channel: &str, recipient: &str, subject: &str, body: &str) -> Result<String, HostError> {
        let id = asked("notify.send", |out| unsafe {
            host::send(
                channel.as_ptr(),
                channel.len(),
                recipient.as_ptr(),
                recipient.len(),
                subject.as_ptr(),
                subject.len(),
                body.as_ptr(),
                body.len(),
                out,
            )
        })?;
        Ok(id.own())
    }
}

/// Time.
pub mod clock {
    use super::*;

    mod host {
        use super::*;
        #[link(wasm_import_module = "keelstone:plugin/clock@1.1.0")]
        extern "C" {
            pub fn now(out: *mut Outcome<u64>);
            pub fn monotonic(out: *mut Outcome<u64>);
        }
    }

    /// Milliseconds since 1970-01-01T00:00Z.
    pub fn now() -> Result<u64, HostError> {
        asked("clock.now", |out| unsafe { host::now(out) })
    }

    /// Nanoseconds from some moment on, which never go back: for measuring.
    pub fn monotonic() -> Result<u64, HostError> {
        asked("clock.monotonic", |out| unsafe { host::monotonic(out) })
    }
}

/// Unpredictable numbers, fit for keys.
pub mod random {
    use super::*;

    mod host {
        use super::*;
        #[link(wasm_import_module = "keelstone:plugin/random@1.1.0")]
        extern "C" {
            pub fn number(out: *mut Outcome<u64>);
            pub fn hex(bytes: u32, out: *mut Outcome<Text>);
        }
    }

    pub fn number() -> Result<u64, HostError> {
        asked("random.number", |out| unsafe { host::number(out) })
    }

    /// So many random bytes (1 to 1024) as hexadecimal text.
    pub fn hex(bytes: u32) -> Result<String, HostError> {
        Ok(asked("random.hex", |out| unsafe { host::hex(bytes, out) })?.own())
    }
}

/// What other plugins offer.
pub mod services {
    use super::*;

    mod host {
        use super::*;
        #[link(wasm_import_module = "keelstone:plugin/services@1.1.0")]
        extern "C" {
            pub fn call(
                plugin: *const u8,
                plugin_size: usize,
                method: *const u8,
                method_size: usize,
                payload: *const u8,
                payload_size: usize,
                out: *mut Outcome<Text>,
            );
        }
    }

    /// The answer of another plugin's method, in this call's tenant.
    pub fn call(plugin: &str, method: &str, payload: &Json) -> Result<Json, HostError> {
        let payload = payload.to_string();
        let answer = asked("services.call", |out| unsafe {
            host::call(
                plugin.as_ptr(),
                plugin.len(),
                method.as_ptr(),
                method.len(),
                payload.as_ptr(),
                payload.len(),
                out,
            )
        })?;
        Ok(Json::parse(&answer.own()).unwrap_or(Json::Null))
    }
}
