//! The component model's canonical ABI (UTF-8) for the shapes of keelstone.wit, and a call's memory.
//! Source: https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md

const std = @import("std");

/// The host refused or failed a call.
pub const HostError = error{ NotGranted, Invalid, Denied, NotFound, Unavailable, Deadline, LimitReached, Refused };

/// The host's own code and words.
pub const Refusal = struct { code: []const u8, message: []const u8 };

var arena = std.heap.ArenaAllocator.init(std.heap.wasm_allocator);
var last: ?Refusal = null;
var last_call: []const u8 = "";
var last_error: HostError = error.Refused;

pub const allocator: std.mem.Allocator = .{ .ptr = &arena, .vtable = &vtable };
const vtable: std.mem.Allocator.VTable = .{ .alloc = alloc, .resize = resize, .remap = remap, .free = free };

fn alloc(_: *anyopaque, size: usize, alignment: std.mem.Alignment, at: usize) ?[*]u8 {
    return arena.allocator().rawAlloc(size, alignment, at);
}

fn resize(_: *anyopaque, memory: []u8, alignment: std.mem.Alignment, size: usize, at: usize) bool {
    return arena.allocator().rawResize(memory, alignment, size, at);
}

fn remap(_: *anyopaque, memory: []u8, alignment: std.mem.Alignment, size: usize, at: usize) ?[*]u8 {
    return arena.allocator().rawRemap(memory, alignment, size, at);
}

fn free(_: *anyopaque, memory: []u8, alignment: std.mem.Alignment, at: usize) void {
    arena.allocator().rawFree(memory, alignment, at);
}

/// Why the last host call was refused, null if none was.
pub fn refusal() ?Refusal {
    return last;
}

/// Where a slice lies. An empty one of an allocator's lies nowhere, but the host checks the address.
pub fn where(slice: anytype) @TypeOf(slice.ptr) {
    return if (slice.len == 0) @ptrFromInt(8) else slice.ptr;
}

/// Text as it lies in memory.
pub const Text = extern struct {
    ptr: [*]const u8,
    len: usize,

    pub fn of(text: []const u8) Text {
        return .{ .ptr = where(text), .len = text.len };
    }

    pub fn slice(text: Text) []const u8 {
        return if (text.len == 0) "" else text.ptr[0..text.len];
    }
};

/// option<string> as it lies in memory.
pub const Option = extern struct {
    some: u8,
    text: Text,

    pub fn get(option: Option) ?[]const u8 {
        return if (option.some == 0) null else option.text.slice();
    }
};

/// A list as it lies in memory.
pub fn List(comptime Item: type) type {
    return extern struct {
        ptr: [*]const Item,
        len: usize,

        pub fn items(list: @This()) []const Item {
            return if (list.len == 0) &.{} else list.ptr[0..list.len];
        }
    };
}

const Failure = extern struct { code: Text, message: Text };

/// result<Value, failure> as it lies in memory; `call` names the host call.
pub fn Result(comptime Value: type) type {
    return extern struct {
        failed: u8 = 0,
        is: extern union { value: Value, failure: Failure } = undefined,

        pub fn take(result: *const @This(), call: []const u8) HostError!Value {
            if (result.failed == 0) return result.is.value;
            const code = result.is.failure.code.slice();
            last = .{ .code = code, .message = result.is.failure.message.slice() };
            last_call = call;
            last_error = if (std.mem.startsWith(u8, code, "limit")) error.LimitReached else codes.get(code) orelse error.Refused;
            return last_error;
        }
    };
}

/// A value that says nothing: result<_, failure>.
pub const Nothing = extern struct {};

const codes = std.StaticStringMap(HostError).initComptime(.{
    .{ "not-granted", error.NotGranted },
    .{ "invalid", error.Invalid },
    .{ "denied", error.Denied },
    .{ "not-found", error.NotFound },
    .{ "unavailable", error.Unavailable },
    .{ "deadline", error.Deadline },
});

/// What `handle` returns.
pub const Answer = extern struct { failed: u8, text: Text };
var answer: Answer = undefined;

pub fn answered(text: []const u8) *const Answer {
    answer = .{ .failed = 0, .text = .of(text) };
    return &answer;
}

pub fn failed(message: []const u8) *const Answer {
    answer = .{ .failed = 1, .text = .of(message) };
    return &answer;
}

/// The failure that an error of the plugin's stands for: the host's words if it is the host's.
pub fn failedWith(err: anyerror) *const Answer {
    const found = last orelse return failed(@errorName(err));
    if (err != @as(anyerror, last_error)) return failed(@errorName(err));
    return failed(std.fmt.allocPrint(allocator, "{s}: {s}: {s}", .{ last_call, found.code, found.message }) catch found.code);
}

/// The host's allocator.
pub fn reallocate(old: ?[*]u8, old_size: usize, size: usize) [*]u8 {
    if (size == 0) return @ptrFromInt(8);
    const fresh = allocator.alignedAlloc(u8, .@"8", size) catch @panic("out of memory");
    if (old) |from| @memcpy(fresh[0..@min(old_size, size)], from[0..@min(old_size, size)]);
    return fresh.ptr;
}

/// The answer is taken: the call's memory goes back.
pub fn end() void {
    _ = arena.reset(.{ .retain_with_limit = 64 * 1024 });
    last = null;
}
