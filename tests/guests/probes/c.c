/* The probe of the guest library for C: does what its payload's attributes tell it. */
#include <keelstone.h>
#include <stdio.h>
#include <stdlib.h>

static void say(ks_json *said, ks_text text) { ks_json_push(said, ks_json_text(text)); }
static void say_if(ks_json *said, bool flag) { ks_json_push(said, ks_json_bool(flag)); }
static void say_maybe(ks_json *said, ks_text text) {
    ks_json_push(said, text.data ? ks_json_text(text) : ks_json_null());
}

static void settings(ks_json *said) {
    say(said, ks_config_text(KS("text"), KS("none")));
    ks_json_push(said, ks_json_number(ks_config_number(KS("number"), -1)));
    say_if(said, ks_config_flag(KS("flag"), false));
    const ks_texts list = ks_config_list(KS("list"));
    for (size_t i = 0; i < list.count; i++) say(said, list.items[i]);
}

static void store(ks_json *said) {
    ks_kv_set(KS("b"), KS("2"), NULL);
    ks_kv_set(KS("a"), KS("1 \u00e9\U0001F600"), NULL);
    ks_kv_set(KS("c"), KS(""), NULL);
    const ks_text c = ks_kv_get(KS("c"), NULL);
    say_if(said, c.data && c.size == 0);
    ks_kv_delete(KS("c"), NULL);
    say_if(said, !ks_kv_get(KS("c"), NULL).data);
    const ks_texts keys = ks_kv_keys(KS(""), 10, NULL);
    for (size_t i = 0; i < keys.count; i++) say(said, ks_kv_get(keys.items[i], NULL));
}

static void refused(ks_json *said) {
    ks_failure failure = {0};
    ks_kv_get(KS("a"), &failure);
    say(said, failure.failed ? failure.code : KS("got"));
    ks_kv_keys(KS(""), 1, &failure);
    say(said, failure.failed ? failure.code : KS("listed"));
    ks_events_emit(KS("probe.tried"), ks_json_object(), &failure);
    say(said, failure.failed ? failure.code : KS("emitted"));
    ks_http_send(&(ks_request){.method = KS("GET"), .url = KS("https://example.com/")}, &failure);
    say(said, failure.failed ? failure.code : KS("sent"));
    ks_config_get(KS("text"), &failure);
    say(said, failure.failed ? failure.code : KS("asked"));
}

static void fetch(ks_json *said) {
    const ks_text target = ks_config_text(KS("target"), KS(""));
    const ks_header headers[] = {{KS("content-type"), KS("application/json")}, {KS("x-probe"), KS("yes")}};
    const ks_request request = {KS("POST"), ks_format("%secho", target.data), headers, 2, KS("{\"x\":1}")};
    const ks_response answer = ks_http_send(&request, NULL);
    ks_json_push(said, ks_json_integer(answer.status));
    say_if(said, answer.status >= 200 && answer.status < 300);
    say(said, answer.body);
    const ks_text header = ks_http_header(&answer, KS("X-Answer"));
    say(said, header.data ? header : KS("none"));
}

static void more(ks_json *said) {
    ks_kv_set_many((ks_entry[]){{KS("x"), KS("1")}, {KS("y"), KS("")}}, 2, NULL);
    const ks_texts many = ks_kv_get_many((ks_texts){(ks_text[]){KS("x"), KS("nope"), KS("y")}, 3}, NULL);
    for (size_t i = 0; i < many.count; i++) say_maybe(said, many.items[i]);
    say_if(said, ks_kv_set_if(KS("x"), KS("2"), KS("1"), NULL));
    say_if(said, ks_kv_set_if(KS("x"), KS("3"), (ks_text){0}, NULL));
    ks_kv_set_for(KS("t"), KS("gone"), 60, NULL);
    say(said, ks_kv_get(KS("t"), NULL));
    say_if(said, ks_clock_now(NULL) > 1700000000000u);
    const uint64_t before = ks_clock_monotonic(NULL);
    say_if(said, ks_clock_monotonic(NULL) >= before);
    say_if(said, ks_random_number(NULL) != ks_random_number(NULL));
    say_if(said, ks_random_hex(8, NULL).size == 16);
    say_if(said, ks_secrets_placeholder(KS("token"), NULL).size > 0);
    ks_prompt prompt = {KS("small"), KS("Be brief."), KS("What?"), 50};
    const ks_completion answer = ks_ai_complete(&prompt, NULL);
    say(said, answer.text);
    say(said, answer.model);
    ks_json_push(said, ks_json_integer(answer.tokens));
    say(said, ks_notify_send(&(ks_notice){KS("email"), KS("ann@example.com"), KS("Hi"), KS("Body \u00e9")}, NULL));
    ks_json *query = ks_json_set(ks_json_object(), KS("q"), ks_json_text(KS("\u00e9")));
    const ks_json *found = ks_services_call(KS("acme/other"), KS("lookup"), query, NULL);
    say(said, ks_json_as_text(ks_json_get(found, KS("found")), KS("")));
    ks_failure failure;
    prompt.model = KS("large");
    ks_ai_complete(&prompt, &failure);
    say(said, failure.code);
}

ks_filter_reply user_creating(ks_user_draft *draft) {
    ks_json *said = ks_json_list();
    const ks_text todo = ks_json_as_text(ks_json_get(draft->attributes, KS("do")), KS(""));
    if (ks_equal(todo, KS("settings"))) settings(said);
    if (ks_equal(todo, KS("kv"))) store(said);
    if (ks_equal(todo, KS("refused"))) refused(said);
    if (ks_equal(todo, KS("fetch"))) fetch(said);
    if (ks_equal(todo, KS("more"))) more(said);
    if (ks_equal(todo, KS("emit")))
        ks_events_emit(KS("probe.tried"), ks_json_set(ks_json_object(), KS("n"), ks_json_integer(7)), NULL);
    if (ks_equal(todo, KS("insist"))) ks_kv_set(KS("a"), KS("1"), NULL);
    if (ks_equal(todo, KS("fail"))) return ks_filter_failed(KS("cannot"));
    if (ks_equal(todo, KS("log"))) {
        ks_log_debug(KS("d"));
        ks_log_info(KS("i \u00e9\U0001F600"));
        ks_log_warn(KS("w"));
        ks_log_error(KS("e"));
        printf("printed\n");
        fflush(stdout);
    }
    if (ks_equal(todo, KS("crash"))) {
        fprintf(stderr, "on purpose\n");
        abort();
    }
    ks_json_set(draft->attributes, KS("said"), said);
    return ks_change(draft);
}

ks_decide_reply access_deciding(ks_access_request *request) {
    if (ks_equal(request->action, KS("deny"))) return ks_deny(KS("no"));
    if (!ks_equal(request->action, KS("allow"))) return ks_abstain();
    ks_text reason = ks_format("%s/", request->principal.data);
    for (size_t i = 0; i < request->roles.count; i++)
        reason = ks_format("%s%s%s", reason.data, i ? "," : "", request->roles.items[i].data);
    return ks_allow(reason);
}

ks_observe_reply event_received(ks_event_view *event) {
    if (ks_json_get(event->data, KS("fail"))) return ks_retry(KS("later"));
    ks_log_info(ks_format("%s %lld %s", event->type.data, (long long)event->version, event->tenant.data));
    return ks_done();
}
