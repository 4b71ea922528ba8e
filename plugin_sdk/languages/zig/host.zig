//! Host calls of keelstone.wit, by capability.

const std = @import("std");
const abi = @import("abi.zig");

const HostError = abi.HostError;
const List = abi.List;
const Nothing = abi.Nothing;
const Option = abi.Option;
const Result = abi.Result;
const Text = abi.Text;

/// Lines for the plugin's log.
pub const log = struct {
    extern "keelstone:plugin/log@1.1.0" fn write(level: u32, ptr: [*]const u8, len: usize) void;

    fn line(level: u32, comptime template: []const u8, arguments: anytype) void {
        const text = std.fmt.allocPrint(abi.allocator, template, arguments) catch template;
        write(level, abi.where(text), text.len);
    }

    pub fn debug(comptime template: []const u8, arguments: anytype) void {
        line(0, template, arguments);
    }

    pub fn info(comptime template: []const u8, arguments: anytype) void {
        line(1, template, arguments);
    }

    pub fn warn(comptime template: []const u8, arguments: anytype) void {
        line(2, template, arguments);
    }

    pub fn err(comptime template: []const u8, arguments: anytype) void {
        line(3, template, arguments);
    }
};

/// The tenant's settings for this plugin, after defaults.
pub const config = struct {
    extern "keelstone:plugin/config@1.1.0" fn get(ptr: [*]const u8, len: usize, out: *Result(Option)) void;

    /// One setting as JSON text, null if it is not set.
    pub fn raw(key: []const u8) HostError!?[]const u8 {
        var out: Result(Option) = .{};
        get(abi.where(key), key.len, &out);
        return (try out.take("config.get")).get();
    }

    /// One setting, null if it is not set or is not of that type.
    pub fn value(comptime Value: type, key: []const u8) HostError!?Value {
        const found = try raw(key) orelse return null;
        return std.json.parseFromSliceLeaky(Value, abi.allocator, found, .{ .ignore_unknown_fields = true }) catch null;
    }

    pub fn text(key: []const u8, otherwise: []const u8) HostError![]const u8 {
        return try value([]const u8, key) orelse otherwise;
    }

    pub fn integer(key: []const u8, otherwise: i64) HostError!i64 {
        return try value(i64, key) orelse otherwise;
    }

    pub fn number(key: []const u8, otherwise: f64) HostError!f64 {
        return try value(f64, key) orelse otherwise;
    }

    pub fn flag(key: []const u8, otherwise: bool) HostError!bool {
        return try value(bool, key) orelse otherwise;
    }

    pub fn list(key: []const u8) HostError![]const []const u8 {
        return try value([]const []const u8, key) orelse &.{};
    }
};

/// Small durable state, private to this plugin and tenant.
pub const kv = struct {
    const host = struct {
        extern "keelstone:plugin/kv@1.1.0" fn get(key: [*]const u8, len: usize, out: *Result(Option)) void;
        extern "keelstone:plugin/kv@1.1.0" fn set(key: [*]const u8, len: usize, value: [*]const u8, value_len: usize, out: *Result(Nothing)) void;
        extern "keelstone:plugin/kv@1.1.0" fn delete(key: [*]const u8, len: usize, out: *Result(Nothing)) void;
        extern "keelstone:plugin/kv@1.1.0" fn @"list-keys"(prefix: [*]const u8, len: usize, limit: u32, out: *Result(List(Text))) void;
        extern "keelstone:plugin/kv@1.1.0" fn @"set-if"(key: [*]const u8, len: usize, value: [*]const u8, value_len: usize, some: u32, expected: [*]const u8, expected_len: usize, out: *Result(u8)) void;
        extern "keelstone:plugin/kv@1.1.0" fn @"set-for"(key: [*]const u8, len: usize, value: [*]const u8, value_len: usize, seconds: u32, out: *Result(Nothing)) void;
        extern "keelstone:plugin/kv@1.1.0" fn @"get-many"(keys: [*]const Text, count: usize, out: *Result(List(Option))) void;
        extern "keelstone:plugin/kv@1.1.0" fn @"set-many"(entries: [*]const [2]Text, count: usize, out: *Result(Nothing)) void;
    };

    pub const Entry = struct { key: []const u8, value: []const u8 };

    /// The value of a key, null if there is none.
    pub fn get(key: []const u8) HostError!?[]const u8 {
        var out: Result(Option) = .{};
        host.get(abi.where(key), key.len, &out);
        return (try out.take("kv.get")).get();
    }

    pub fn set(key: []const u8, value: []const u8) HostError!void {
        var out: Result(Nothing) = .{};
        host.set(abi.where(key), key.len, abi.where(value), value.len, &out);
        _ = try out.take("kv.set");
    }

    pub fn delete(key: []const u8) HostError!void {
        var out: Result(Nothing) = .{};
        host.delete(abi.where(key), key.len, &out);
        _ = try out.take("kv.delete");
    }

    /// Keys that begin with `prefix`, in order, at most `limit`.
    pub fn keys(prefix: []const u8, limit: u32) ![]const []const u8 {
        var out: Result(List(Text)) = .{};
        host.@"list-keys"(abi.where(prefix), prefix.len, limit, &out);
        const found = (try out.take("kv.list-keys")).items();
        const names = try abi.allocator.alloc([]const u8, found.len);
        for (names, found) |*name, text| name.* = text.slice();
        return names;
    }

    /// Write only if the key has the value `expected` (null: there is no such key). False if not.
    pub fn setIf(key: []const u8, value: []const u8, expected: ?[]const u8) HostError!bool {
        var out: Result(u8) = .{};
        const text = expected orelse "";
        host.@"set-if"(abi.where(key), key.len, abi.where(value), value.len, @intFromBool(expected != null), abi.where(text), text.len, &out);
        return try out.take("kv.set-if") != 0;
    }

    /// Write a value that is gone after so many seconds.
    pub fn setFor(key: []const u8, value: []const u8, seconds: u32) HostError!void {
        var out: Result(Nothing) = .{};
        host.@"set-for"(abi.where(key), key.len, abi.where(value), value.len, seconds, &out);
        _ = try out.take("kv.set-for");
    }

    /// The values of several keys, in that order.
    pub fn getMany(wanted: []const []const u8) ![]const ?[]const u8 {
        const texts = try abi.allocator.alloc(Text, wanted.len);
        for (texts, wanted) |*text, key| text.* = .of(key);
        var out: Result(List(Option)) = .{};
        host.@"get-many"(abi.where(texts), texts.len, &out);
        const found = (try out.take("kv.get-many")).items();
        const values = try abi.allocator.alloc(?[]const u8, found.len);
        for (values, found) |*value, option| value.* = option.get();
        return values;
    }

    /// Write several values: all of them, or none if one is refused.
    pub fn setMany(entries: []const Entry) !void {
        const pairs = try abi.allocator.alloc([2]Text, entries.len);
        for (pairs, entries) |*pair, entry| pair.* = .{ .of(entry.key), .of(entry.value) };
        var out: Result(Nothing) = .{};
        host.@"set-many"(abi.where(pairs), pairs.len, &out);
        _ = try out.take("kv.set-many");
    }
};

/// Outgoing requests to the hosts in the manifest.
pub const http = struct {
    const Pair = extern struct { name: Text, value: Text };
    const Received = extern struct { status: u16, headers: List(Pair), body: Text };
    const host = struct {
        extern "keelstone:plugin/http@1.1.0" fn send(method: [*]const u8, method_len: usize, url: [*]const u8, url_len: usize, headers: [*]const Pair, header_count: usize, has_body: u32, body: [*]const u8, body_len: usize, out: *Result(Received)) void;
    };

    pub const Header = struct { name: []const u8, value: []const u8 };

    pub const Request = struct {
        method: []const u8 = "GET",
        url: []const u8,
        headers: []const Header = &.{},
        body: ?[]const u8 = null,
    };

    pub const Response = struct {
        status: u16,
        headers: []const Header,
        body: []const u8,

        /// True for the statuses 200 to 299.
        pub fn ok(response: Response) bool {
            return response.status >= 200 and response.status < 300;
        }

        /// The first header of that name, in any case.
        pub fn header(response: Response, name: []const u8) ?[]const u8 {
            for (response.headers) |one| if (std.ascii.eqlIgnoreCase(one.name, name)) return one.value;
            return null;
        }
    };

    /// The answer, whatever its status.
    pub fn send(request: Request) !Response {
        const pairs = try abi.allocator.alloc(Pair, request.headers.len);
        for (pairs, request.headers) |*pair, one| pair.* = .{ .name = .of(one.name), .value = .of(one.value) };
        const body = request.body orelse "";
        var out: Result(Received) = .{};
        host.send(abi.where(request.method), request.method.len, abi.where(request.url), request.url.len, abi.where(pairs), pairs.len, @intFromBool(request.body != null), abi.where(body), body.len, &out);
        const received = try out.take("http.send");
        const headers = try abi.allocator.alloc(Header, received.headers.len);
        for (headers, received.headers.items()) |*one, pair| one.* = .{ .name = pair.name.slice(), .value = pair.value.slice() };
        return .{ .status = received.status, .headers = headers, .body = received.body.slice() };
    }
};

/// Events of the types that the manifest declares.
pub const events = struct {
    const host = struct {
        extern "keelstone:plugin/events@1.1.0" fn emit(kind: [*]const u8, kind_len: usize, data: [*]const u8, data_len: usize, out: *Result(Nothing)) void;
    };

    /// Emit one event; it is saved if the call succeeds. `data` is anything that std.json writes as an object.
    pub fn emit(kind: []const u8, data: anytype) !void {
        const text = try std.json.Stringify.valueAlloc(abi.allocator, data, .{});
        var out: Result(Nothing) = .{};
        host.emit(abi.where(kind), kind.len, abi.where(text), text.len, &out);
        _ = try out.take("events.emit");
    }
};

/// Secrets that an admin keeps for this plugin: to be sent, never to be read.
pub const secrets = struct {
    const host = struct {
        extern "keelstone:plugin/secrets@1.1.0" fn placeholder(name: [*]const u8, len: usize, out: *Result(Text)) void;
    };

    /// Text that stands for the secret in this call's requests: the host puts the value in its place.
    pub fn placeholder(name: []const u8) HostError![]const u8 {
        var out: Result(Text) = .{};
        host.placeholder(abi.where(name), name.len, &out);
        return (try out.take("secrets.placeholder")).slice();
    }
};

/// Language models, through the platform's own providers.
pub const ai = struct {
    const Answered = extern struct { text: Text, model: Text, tokens: u32 };
    const host = struct {
        extern "keelstone:plugin/ai@1.1.0" fn complete(model: [*]const u8, model_len: usize, has_system: u32, system: [*]const u8, system_len: usize, text: [*]const u8, text_len: usize, max_tokens: u32, out: *Result(Answered)) void;
    };

    pub const Prompt = struct { model: []const u8, system: ?[]const u8 = null, text: []const u8, max_tokens: u32 };
    /// `tokens` counts both ways.
    pub const Completion = struct { text: []const u8, model: []const u8, tokens: u32 };

    /// What the model answers.
    pub fn complete(prompt: Prompt) HostError!Completion {
        const system = prompt.system orelse "";
        var out: Result(Answered) = .{};
        host.complete(abi.where(prompt.model), prompt.model.len, @intFromBool(prompt.system != null), abi.where(system), system.len, abi.where(prompt.text), prompt.text.len, prompt.max_tokens, &out);
        const found = try out.take("ai.complete");
        return .{ .text = found.text.slice(), .model = found.model.slice(), .tokens = found.tokens };
    }
};

/// Messages to people, over the channels that the tenant has set up.
pub const notify = struct {
    const host = struct {
        extern "keelstone:plugin/notify@1.1.0" fn send(channel: [*]const u8, channel_len: usize, recipient: [*]const u8, recipient_len: usize, subject: [*]const u8, subject_len: usize, body: [*]const u8, body_len: usize, out: *Result(Text)) void;
    };

    pub const Notice = struct { channel: []const u8, recipient: []const u8, subject: []const u8, body: []const u8 };

    /// The message's id, once it is accepted for delivery.
    pub fn send(notice: Notice) HostError![]const u8 {
        var out: Result(Text) = .{};
        host.send(abi.where(notice.channel), notice.channel.len, abi.where(notice.recipient), notice.recipient.len, abi.where(notice.subject), notice.subject.len, abi.where(notice.body), notice.body.len, &out);
        return (try out.take("notify.send")).slice();
    }
};

/// Time.
pub const clock = struct {
    const host = struct {
        extern "keelstone:plugin/clock@1.1.0" fn now(out: *Result(u64)) void;
        extern "keelstone:plugin/clock@1.1.0" fn monotonic(out: *Result(u64)) void;
    };

    /// Milliseconds since 1970-01-01T00:00Z.
    pub fn now() HostError!u64 {
        var out: Result(u64) = .{};
        host.now(&out);
        return out.take("clock.now");
    }

    /// Nanoseconds from some moment on, which never go back.
    pub fn monotonic() HostError!u64 {
        var out: Result(u64) = .{};
        host.monotonic(&out);
        return out.take("clock.monotonic");
    }
};

/// Unpredictable numbers, fit for keys.
pub const random = struct {
    const host = struct {
        extern "keelstone:plugin/random@1.1.0" fn number(out: *Result(u64)) void;
        extern "keelstone:plugin/random@1.1.0" fn hex(bytes: u32, out: *Result(Text)) void;
    };

    pub fn number() HostError!u64 {
        var out: Result(u64) = .{};
        host.number(&out);
        return out.take("random.number");
    }

    /// So many random bytes (1 to 1024) as hexadecimal text.
    pub fn hex(bytes: u32) HostError![]const u8 {
        var out: Result(Text) = .{};
        host.hex(bytes, &out);
        return (try out.take("random.hex")).slice();
    }
};

/// What other plugins offer.
pub const services = struct {
    const host = struct {
        extern "keelstone:plugin/services@1.1.0" fn call(plugin: [*]const u8, plugin_len: usize, method: [*]const u8, method_len: usize, payload: [*]const u8, payload_len: usize, out: *Result(Text)) void;
    };

    /// The answer of another plugin's method, in this call's tenant, as a `Value`.
    pub fn call(comptime Value: type, plugin: []const u8, method: []const u8, payload: anytype) !Value {
        const text = try std.json.Stringify.valueAlloc(abi.allocator, payload, .{});
        var out: Result(Text) = .{};
        host.call(abi.where(plugin), plugin.len, abi.where(method), method.len, abi.where(text), text.len, &out);
        const found = (try out.take("services.call")).slice();
        return std.json.parseFromSliceLeaky(Value, abi.allocator, found, .{ .ignore_unknown_fields = true });
    }
};
