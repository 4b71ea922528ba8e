//! The component model's canonical ABI (UTF-8) for the shapes of keelstone.wit. Source:
//! <https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md>

use std::alloc::{self, Layout};
use std::fmt;

use crate::replies::Failure;

/// The host refused or failed a call; `code` is stable (keelstone.wit lists them).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostError {
    /// Which host call, e.g. `kv.get`.
    pub call: &'static str,
    pub code: String,
    pub message: String,
}

impl fmt::Display for HostError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}: {}", self.call, self.code, self.message)
    }
}

impl std::error::Error for HostError {}

/// Text as it lies in memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Text {
    at: *mut u8,
    size: usize,
}

impl Text {
    pub fn new(at: *mut u8, size: usize) -> Text {
        Text { at, size }
    }

    pub fn of(text: &str) -> Text {
        Text { at: text.as_ptr() as *mut u8, size: text.len() }
    }

    /// The text, which the host has put into memory of [`reallocate`]'s for us to own.
    pub fn own(self) -> String {
        if self.size == 0 {
            return String::new();
        }
        // SAFETY: the host allocated exactly `size` bytes with alignment 1 and wrote UTF-8 into them.
        unsafe { String::from_raw_parts(self.at, self.size, self.size) }
    }
}

/// option<string> as it lies in memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Maybe {
    some: u8,
    text: Text,
}

impl Maybe {
    pub fn own(self) -> Option<String> {
        if self.some == 0 {
            None
        } else {
            Some(self.text.own())
        }
    }
}

/// A list as it lies in memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct List<T: Copy> {
    at: *mut T,
    size: usize,
}

impl<T: Copy> List<T> {
    pub fn own(self) -> Vec<T> {
        if self.size == 0 {
            return Vec::new();
        }
        // SAFETY: the host allocated room for exactly `size` items with their alignment and wrote them.
        unsafe { Vec::from_raw_parts(self.at, self.size, self.size) }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct RawFailure {
    code: Text,
    message: Text,
}

#[repr(C)]
union Either<T: Copy> {
    value: T,
    failure: RawFailure,
}

/// result<T, failure> as it lies in memory, for the host to write.
#[repr(C)]
pub struct Outcome<T: Copy> {
    failed: u8,
    is: Either<T>,
}

/// What the host answers through `call` to the host call named `name`.
pub fn asked<T: Copy>(name: &'static str, call: impl FnOnce(*mut Outcome<T>)) -> Result<T, HostError> {
    let mut outcome = std::mem::MaybeUninit::<Outcome<T>>::zeroed();
    call(outcome.as_mut_ptr());
    // SAFETY: the host has written the result; `failed` says which side of it.
    unsafe {
        let outcome = outcome.assume_init();
        if outcome.failed == 0 {
            return Ok(outcome.is.value);
        }
        let failure = outcome.is.failure;
        Err(HostError { call: name, code: failure.code.own(), message: failure.message.own() })
    }
}

/// What `handle` returns.
#[repr(C)]
pub struct Answer {
    failed: u8,
    text: Text,
}

/// Hand an answer to the host, until [`free`] takes it back.
pub fn answer(outcome: Result<String, Failure>) -> *mut Answer {
    let (failed, text) = match outcome {
        Ok(text) => (0, text),
        Err(failure) => (1, failure.message),
    };
    let text = text.into_bytes().into_boxed_slice();
    let size = text.len();
    let at = Box::into_raw(text) as *mut u8;
    Box::into_raw(Box::new(Answer { failed, text: Text { at, size } }))
}

/// # Safety
/// `answer` comes from [`answer`] and is not used again.
pub unsafe fn free(answer: *mut Answer) {
    let answer = Box::from_raw(answer);
    drop(Vec::from_raw_parts(answer.text.at, answer.text.size, answer.text.size));
}

/// The host's allocator.
///
/// # Safety
/// As the component model asks for: `old` is null or came from here with the same size and alignment.
pub unsafe fn reallocate(old: *mut u8, old_size: usize, alignment: usize, size: usize) -> *mut u8 {
    if size == 0 {
        return alignment as *mut u8;
    }
    let at = if old.is_null() || old_size == 0 {
        alloc::alloc(Layout::from_size_align_unchecked(size, alignment))
    } else {
        alloc::realloc(old, Layout::from_size_align_unchecked(old_size, alignment), size)
    };
    if at.is_null() {
        std::process::abort();
    }
    at
}
