//! Keelstone's guest library for Zig.
//!
//! Write one public function for each hook of the manifest, with the hook's name:
//!
//!     const keelstone = @import("keelstone");
//!
//!     pub fn user_creating(draft: *keelstone.UserDraft) !keelstone.Filtered(keelstone.UserDraft) {
//!         if (draft.name.len == 0) return .{ .reject = "Please tell us your name." };
//!         return .keep;
//!     }
//!
//! A filter returns `Filtered`, a decide hook `Decision`, an observe hook nothing; an error that any of
//! them returns fails the call and keeps nothing of what it did (an event comes again later). Memory of
//! `allocator` lives until the call ends and need not be freed.
//!
//! Host calls are grouped by capability: `log`, `config`, `kv`, `http`, `events` and so on. They return
//! a `HostError` when the host refuses; `refusal` then has the host's own code and words. Using a
//! capability that the manifest does not ask for stops the build with a message that says so.

const std = @import("std");
/// What the generated entry needs, and plugins do not.
pub const abi = @import("abi.zig");
const payloads = @import("payloads.zig");
const host = @import("host.zig");

pub const UserDraft = payloads.UserDraft;
pub const TenantDraft = payloads.TenantDraft;
pub const AccessRequest = payloads.AccessRequest;
pub const InstallRequest = payloads.InstallRequest;
pub const EventView = payloads.EventView;

pub const HostError = abi.HostError;
pub const Refusal = abi.Refusal;
pub const refusal = abi.refusal;

pub const log = host.log;
pub const config = host.config;
pub const kv = host.kv;
pub const http = host.http;
pub const events = host.events;
pub const secrets = host.secrets;
pub const ai = host.ai;
pub const notify = host.notify;
pub const clock = host.clock;
pub const random = host.random;
pub const services = host.services;

/// Memory that lives until the call ends.
pub const allocator = abi.allocator;

/// What a filter answers.
pub fn Filtered(comptime Payload: type) type {
    return union(enum) {
        /// Leave the payload as it is.
        keep,
        /// Go on with this payload instead.
        change: Payload,
        /// Refuse; the reason is shown to the caller.
        reject: []const u8,
    };
}

/// What a decide hook answers.
pub const Decision = union(enum) {
    /// No opinion: the next implementation is asked.
    abstain,
    allow: []const u8,
    deny: []const u8,
};

/// Text from a format and arguments, as std.fmt takes them.
pub fn format(comptime template: []const u8, arguments: anytype) ![]u8 {
    return std.fmt.allocPrint(allocator, template, arguments);
}

/// `value` as JSON text.
pub fn toJson(value: anytype) ![]u8 {
    return std.json.Stringify.valueAlloc(allocator, value, .{});
}

/// The value in JSON text.
pub fn fromJson(comptime Value: type, text: []const u8) !Value {
    return std.json.parseFromSliceLeaky(Value, allocator, text, .{ .ignore_unknown_fields = true });
}

/// For the generated entry: answers of every kind as the replies of the contract.
pub const reply = struct {
    pub fn filter(outcome: anytype) ![]const u8 {
        return switch (outcome) {
            .keep => "{}",
            .change => |payload| toJson(.{ .payload = payload }),
            .reject => |reason| toJson(.{ .reject = .{ .reason = reason } }),
        };
    }

    pub fn decide(outcome: Decision) ![]const u8 {
        return switch (outcome) {
            .abstain => "{}",
            .allow => |reason| toJson(.{ .answer = .{ .allow = true, .reason = reason } }),
            .deny => |reason| toJson(.{ .answer = .{ .allow = false, .reason = reason } }),
        };
    }

    pub fn observe(_: void) ![]const u8 {
        return "{\"done\":true}";
    }
};
