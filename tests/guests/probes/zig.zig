//! The probe of the guest library for Zig: does what its payload's attributes tell it.

const std = @import("std");
const keelstone = @import("keelstone");

const Value = std.json.Value;
const Said = std.json.Array;

pub fn user_creating(draft: *keelstone.UserDraft) !keelstone.Filtered(keelstone.UserDraft) {
    var said = Said.init(keelstone.allocator);
    const todo = if (draft.attributes.object.get("do")) |found| found.string else "";
    if (std.mem.eql(u8, todo, "settings")) try settings(&said);
    if (std.mem.eql(u8, todo, "kv")) try store(&said);
    if (std.mem.eql(u8, todo, "refused")) try refused(&said);
    if (std.mem.eql(u8, todo, "fetch")) try fetch(&said);
    if (std.mem.eql(u8, todo, "more")) try more(&said);
    if (std.mem.eql(u8, todo, "emit")) try keelstone.events.emit("probe.tried", .{ .n = 7 });
    if (std.mem.eql(u8, todo, "insist")) try keelstone.kv.set("a", "1");
    if (std.mem.eql(u8, todo, "fail")) return error.cannot;
    if (std.mem.eql(u8, todo, "crash")) @panic("on purpose");
    if (std.mem.eql(u8, todo, "log")) {
        keelstone.log.debug("d", .{});
        keelstone.log.info("i \u{e9}\u{1F600}", .{});
        keelstone.log.warn("w", .{});
        keelstone.log.err("e", .{});
    }
    try draft.attributes.object.put(keelstone.allocator, "said", .{ .array = said });
    return .{ .change = draft.* };
}

fn say(said: *Said, text: []const u8) !void {
    try said.append(.{ .string = text });
}

fn sayIf(said: *Said, flag: bool) !void {
    try said.append(.{ .bool = flag });
}

fn settings(said: *Said) !void {
    try say(said, try keelstone.config.text("text", "none"));
    try said.append(.{ .float = try keelstone.config.number("number", -1) });
    try sayIf(said, try keelstone.config.flag("flag", false));
    for (try keelstone.config.list("list")) |item| try say(said, item);
}

fn store(said: *Said) !void {
    try keelstone.kv.set("b", "2");
    try keelstone.kv.set("a", "1 \u{e9}\u{1F600}");
    try keelstone.kv.set("c", "");
    const empty = try keelstone.kv.get("c");
    try sayIf(said, empty != null and empty.?.len == 0);
    try keelstone.kv.delete("c");
    try sayIf(said, try keelstone.kv.get("c") == null);
    for (try keelstone.kv.keys("", 10)) |key| try say(said, try keelstone.kv.get(key) orelse "?");
}

fn code(outcome: anytype, otherwise: []const u8) []const u8 {
    _ = outcome catch return keelstone.refusal().?.code;
    return otherwise;
}

fn refused(said: *Said) !void {
    try say(said, code(keelstone.kv.get("a"), "got"));
    try say(said, code(keelstone.kv.keys("", 1), "listed"));
    try say(said, code(keelstone.events.emit("probe.tried", .{}), "emitted"));
    try say(said, code(keelstone.http.send(.{ .url = "https://example.com/" }), "sent"));
    try say(said, code(keelstone.config.raw("text"), "asked"));
}

fn fetch(said: *Said) !void {
    const target = try keelstone.config.text("target", "");
    const answer = try keelstone.http.send(.{
        .method = "POST",
        .url = try keelstone.format("{s}echo", .{target}),
        .headers = &.{ .{ .name = "content-type", .value = "application/json" }, .{ .name = "x-probe", .value = "yes" } },
        .body = try keelstone.toJson(.{ .x = 1 }),
    });
    try said.append(.{ .integer = answer.status });
    try sayIf(said, answer.ok());
    try say(said, answer.body);
    try say(said, answer.header("X-Answer") orelse "none");
}

fn more(said: *Said) !void {
    try keelstone.kv.setMany(&.{ .{ .key = "x", .value = "1" }, .{ .key = "y", .value = "" } });
    for (try keelstone.kv.getMany(&.{ "x", "nope", "y" })) |value| {
        try said.append(if (value) |text| .{ .string = text } else .null);
    }
    try sayIf(said, try keelstone.kv.setIf("x", "2", "1"));
    try sayIf(said, try keelstone.kv.setIf("x", "3", null));
    try keelstone.kv.setFor("t", "gone", 60);
    try say(said, try keelstone.kv.get("t") orelse "none");
    try sayIf(said, try keelstone.clock.now() > 1_700_000_000_000);
    const before = try keelstone.clock.monotonic();
    try sayIf(said, try keelstone.clock.monotonic() >= before);
    try sayIf(said, try keelstone.random.number() != try keelstone.random.number());
    try sayIf(said, (try keelstone.random.hex(8)).len == 16);
    try sayIf(said, (try keelstone.secrets.placeholder("token")).len > 0);
    const answer = try keelstone.ai.complete(.{ .model = "small", .system = "Be brief.", .text = "What?", .max_tokens = 50 });
    try say(said, answer.text);
    try say(said, answer.model);
    try said.append(.{ .integer = answer.tokens });
    try say(said, try keelstone.notify.send(.{ .channel = "email", .recipient = "ann@example.com", .subject = "Hi", .body = "Body \u{e9}" }));
    const Answer = struct { found: []const u8 };
    try say(said, (try keelstone.services.call(Answer, "acme/other", "lookup", .{ .q = "\u{e9}" })).found);
    try say(said, code(keelstone.ai.complete(.{ .model = "large", .text = "What?", .max_tokens = 50 }), "answered"));
}

pub fn access_deciding(request: *keelstone.AccessRequest) !keelstone.Decision {
    if (std.mem.eql(u8, request.action, "deny")) return .{ .deny = "no" };
    if (!std.mem.eql(u8, request.action, "allow")) return .abstain;
    const roles = try std.mem.join(keelstone.allocator, ",", request.roles);
    return .{ .allow = try keelstone.format("{s}/{s}", .{ request.principal, roles }) };
}

pub fn event_received(event: *keelstone.EventView) !void {
    if (event.data.object.get("fail") != null) return error.later;
    keelstone.log.info("{s} {d} {s}", .{ event.type, event.version, event.tenant });
}
