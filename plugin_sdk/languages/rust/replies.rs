//! What hooks answer, as the replies of the contract.

use crate::abi::HostError;
use crate::json::Json;

/// The plugin could not do its work; the message goes to its log and to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Failure {
        Failure { message: error.to_string() }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure { message }
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Failure {
        Failure { message: message.to_string() }
    }
}

/// A payload that a filter may hand back.
pub trait Payload {
    fn to_json(self) -> Json;
}

/// What a filter answers.
pub enum Filtered<P> {
    /// Leave the payload as it is.
    Keep,
    /// Go on with this payload instead.
    Change(P),
    /// Refuse; the reason is shown to the caller.
    Reject(String),
}

/// What a decide hook answers.
pub enum Decision {
    /// No opinion: the next implementation is asked.
    Abstain,
    Allow(String),
    Deny(String),
}

/// For the generated entry: an answer as the contract's reply.
#[doc(hidden)]
pub trait Reply {
    fn reply(self) -> String;
}

impl<P: Payload> Reply for Filtered<P> {
    fn reply(self) -> String {
        match self {
            Filtered::Keep => "{}".to_string(),
            Filtered::Change(payload) => wrapped("payload", payload.to_json()),
            Filtered::Reject(reason) => {
                let mut refusal = Json::object();
                refusal.set("reason", reason);
                wrapped("reject", refusal)
            }
        }
    }
}

impl Reply for Decision {
    fn reply(self) -> String {
        let (allow, reason) = match self {
            Decision::Abstain => return "{}".to_string(),
            Decision::Allow(reason) => (true, reason),
            Decision::Deny(reason) => (false, reason),
        };
        let mut answer = Json::object();
        answer.set("allow", allow).set("reason", reason);
        wrapped("answer", answer)
    }
}

impl Reply for () {
    fn reply(self) -> String {
        "{\"done\":true}".to_string()
    }
}

fn wrapped(name: &str, inner: Json) -> String {
    let mut outer = Json::object();
    outer.set(name, inner);
    outer.to_string()
}
