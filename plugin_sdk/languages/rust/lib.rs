//! Keelstone's guest library for Rust.
//!
//! Write one public function for each hook of the manifest, with the hook's name:
//!
//! ```ignore
//! use keelstone::{Failure, Filtered, UserDraft};
//!
//! pub fn user_creating(draft: UserDraft) -> Result<Filtered<UserDraft>, Failure> {
//!     if draft.name.is_empty() {
//!         return Ok(Filtered::Reject("Please tell us your name.".into()));
//!     }
//!     Ok(Filtered::Keep)
//! }
//! ```
//!
//! A filter answers [`Filtered`], a decide hook [`Decision`], an observe hook `()`. An `Err` fails the
//! call and keeps nothing of what it did (an event comes again later); host calls fail with
//! [`HostError`], which `?` turns into a [`Failure`].
//!
//! Host calls are modules named like the capabilities: [`log`], [`config`], [`kv`], [`http`],
//! [`events`] and so on. Using one that the manifest does not ask for stops the build with a message
//! that says so.

#[doc(hidden)]
pub mod abi;
mod host;
mod json;
mod payloads;
#[doc(hidden)]
pub mod replies;

pub use abi::HostError;
pub use host::{ai, clock, config, events, http, kv, log, notify, random, secrets, services};
pub use json::Json;
pub use payloads::*;
pub use replies::{Decision, Failure, Filtered, Payload};
