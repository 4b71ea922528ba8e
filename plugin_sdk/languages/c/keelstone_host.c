/* Host calls of keelstone.wit, by the canonical ABI of the component model (UTF-8). */
#include "keelstone_internal.h"

#include <string.h>

#define IMPORT(interface, function) \
    __attribute__((import_module("keelstone:plugin/" interface "@1.1.0"), import_name(function)))

/* option<string> */
typedef struct {
    uint8_t some;
    ks_text text;
} given;

/* The result of most calls, at most result<_, failure> or result<option<string>, failure>. */
typedef struct {
    uint8_t failed;
    union {
        struct { ks_text code, message; } failure;
        given option;
        ks_texts texts;
        ks_text text;
        bool flag;
        struct { const given *items; size_t count; } options;
    };
} answer;

typedef struct {
    uint8_t failed;
    union {
        struct { ks_text code, message; } failure;
        struct { uint16_t status; const ks_header *headers; size_t header_count; ks_text body; } response;
    };
} http_answer;

typedef struct {
    uint8_t failed;
    union {
        struct { ks_text code, message; } failure;
        struct { ks_text text, model; uint32_t tokens; } completion;
    };
} ai_answer;

typedef struct {
    uint8_t failed;
    union {
        struct { ks_text code, message; } failure;
        uint64_t number;
    };
} number_answer;

_Static_assert(sizeof(answer) == 20 && sizeof(given) == 12 && sizeof(http_answer) == 24 && sizeof(ai_answer) == 24 &&
                   sizeof(number_answer) == 24,
               "the layout of the canonical ABI");

/* Hand a refusal to who asked for it, or keep it as the end of this call. */
static void refused(const char *what, ks_failure *failure, bool failed, ks_text code, ks_text message) {
    if (failure) {
        failure->failed = failed;
        failure->code = failed ? code : (ks_text){0};
        failure->message = failed ? message : (ks_text){0};
    } else if (failed && !ks_unseen.data) {
        ks_unseen = ks_join(ks_join(ks_join(ks_string(what), KS(": ")), ks_join(code, KS(": "))), message);
    }
}

#define REFUSED(what) refused(what, failure, out.failed, out.failure.code, out.failure.message)

IMPORT("log", "write") void host_log(uint32_t level, const char *data, size_t size);

void ks_log_debug(ks_text line) { host_log(0, line.data, line.size); }
void ks_log_info(ks_text line) { host_log(1, line.data, line.size); }
void ks_log_warn(ks_text line) { host_log(2, line.data, line.size); }
void ks_log_error(ks_text line) { host_log(3, line.data, line.size); }

IMPORT("config", "get") void host_config(const char *key, size_t size, answer *out);

ks_json *ks_config_get(ks_text key, ks_failure *failure) {
    answer out = {0};
    host_config(key.data, key.size, &out);
    REFUSED("config.get");
    return out.failed || !out.option.some ? NULL : ks_json_parse(out.option.text);
}

ks_text ks_config_text(ks_text key, ks_text otherwise) {
    return ks_json_as_text(ks_config_get(key, NULL), otherwise);
}

int64_t ks_config_integer(ks_text key, int64_t otherwise) {
    return ks_json_as_integer(ks_config_get(key, NULL), otherwise);
}

double ks_config_number(ks_text key, double otherwise) {
    return ks_json_as_number(ks_config_get(key, NULL), otherwise);
}

bool ks_config_flag(ks_text key, bool otherwise) {
    return ks_json_as_bool(ks_config_get(key, NULL), otherwise);
}

ks_texts ks_config_list(ks_text key) {
    return ks_json_as_texts(ks_config_get(key, NULL));
}

IMPORT("kv", "get") void host_kv_get(const char *key, size_t size, answer *out);
IMPORT("kv", "set") void host_kv_set(const char *key, size_t size, const char *value, size_t value_size, answer *out);
IMPORT("kv", "delete") void host_kv_delete(const char *key, size_t size, answer *out);
IMPORT("kv", "list-keys") void host_kv_keys(const char *prefix, size_t size, uint32_t limit, answer *out);

ks_text ks_kv_get(ks_text key, ks_failure *failure) {
    answer out = {0};
    host_kv_get(key.data, key.size, &out);
    REFUSED("kv.get");
    return out.failed || !out.option.some ? (ks_text){0} : ks_given(out.option.text);
}

void ks_kv_set(ks_text key, ks_text value, ks_failure *failure) {
    answer out = {0};
    host_kv_set(key.data, key.size, value.data, value.size, &out);
    REFUSED("kv.set");
}

void ks_kv_delete(ks_text key, ks_failure *failure) {
    answer out = {0};
    host_kv_delete(key.data, key.size, &out);
    REFUSED("kv.delete");
}

ks_texts ks_kv_keys(ks_text prefix, uint32_t limit, ks_failure *failure) {
    answer out = {0};
    host_kv_keys(prefix.data, prefix.size, limit, &out);
    REFUSED("kv.list-keys");
    return out.failed ? (ks_texts){0} : out.texts;
}

IMPORT("kv", "set-if")
void host_kv_set_if(const char *key, size_t size, const char *value, size_t value_size, uint32_t has_expected,
                    const char *expected, size_t expected_size, answer *out);
IMPORT("kv", "set-for")
void host_kv_set_for(const char *key, size_t size, const char *value, size_t value_size, uint32_t seconds,
                     answer *out);
IMPORT("kv", "get-many") void host_kv_get_many(const ks_text *keys, size_t count, answer *out);
IMPORT("kv", "set-many") void host_kv_set_many(const ks_entry *entries, size_t count, answer *out);

bool ks_kv_set_if(ks_text key, ks_text value, ks_text expected, ks_failure *failure) {
    answer out = {0};
    host_kv_set_if(key.data, key.size, value.data, value.size, expected.data != NULL, expected.data, expected.size,
                   &out);
    REFUSED("kv.set-if");
    return !out.failed && out.flag;
}

void ks_kv_set_for(ks_text key, ks_text value, uint32_t seconds, ks_failure *failure) {
    answer out = {0};
    host_kv_set_for(key.data, key.size, value.data, value.size, seconds, &out);
    REFUSED("kv.set-for");
}

ks_texts ks_kv_get_many(ks_texts keys, ks_failure *failure) {
    answer out = {0};
    host_kv_get_many(keys.items, keys.count, &out);
    REFUSED("kv.get-many");
    if (out.failed) return (ks_texts){0};
    ks_text *values = ks_alloc(out.options.count * sizeof(ks_text));
    for (size_t i = 0; i < out.options.count; i++)
        if (out.options.items[i].some) values[i] = ks_given(out.options.items[i].text);
    return (ks_texts){values, out.options.count};
}

void ks_kv_set_many(const ks_entry *entries, size_t count, ks_failure *failure) {
    answer out = {0};
    host_kv_set_many(entries, count, &out);
    REFUSED("kv.set-many");
}

IMPORT("http", "send")
void host_http(const char *method, size_t method_size, const char *url, size_t url_size, const ks_header *headers,
               size_t header_count, uint32_t has_body, const char *body, size_t body_size, http_answer *out);

ks_response ks_http_send(const ks_request *request, ks_failure *failure) {
    http_answer out = {0};
    const ks_text body = request->body;
    host_http(request->method.data, request->method.size, request->url.data, request->url.size, request->headers,
              request->header_count, body.data != NULL, body.data, body.size, &out);
    REFUSED("http.send");
    if (out.failed) return (ks_response){0};
    return (ks_response){out.response.status, out.response.headers, out.response.header_count,
                         ks_given(out.response.body)};
}

static char lower(char letter) { return letter >= 'A' && letter <= 'Z' ? (char)(letter | 0x20) : letter; }

ks_text ks_http_header(const ks_response *response, ks_text name) {
    for (size_t i = 0; i < response->header_count; i++) {
        const ks_text found = response->headers[i].name;
        size_t at = 0;
        while (at < name.size && found.size == name.size && lower(found.data[at]) == lower(name.data[at])) at++;
        if (at == name.size && found.size == name.size) return ks_given(response->headers[i].value);
    }
    return (ks_text){0};
}

IMPORT("events", "emit")
void host_emit(const char *type, size_t type_size, const char *data, size_t data_size, answer *out);

void ks_events_emit(ks_text type, const ks_json *data, ks_failure *failure) {
    answer out = {0};
    const ks_text encoded = ks_json_write(data);
    host_emit(type.data, type.size, encoded.data, encoded.size, &out);
    REFUSED("events.emit");
}

IMPORT("secrets", "placeholder") void host_placeholder(const char *name, size_t size, answer *out);

ks_text ks_secrets_placeholder(ks_text name, ks_failure *failure) {
    answer out = {0};
    host_placeholder(name.data, name.size, &out);
    REFUSED("secrets.placeholder");
    return out.failed ? (ks_text){0} : ks_given(out.text);
}

IMPORT("ai", "complete")
void host_complete(const char *model, size_t model_size, uint32_t has_system, const char *system, size_t system_size,
                   const char *text, size_t text_size, uint32_t max_tokens, ai_answer *out);

ks_completion ks_ai_complete(const ks_prompt *prompt, ks_failure *failure) {
    ai_answer out = {0};
    host_complete(prompt->model.data, prompt->model.size, prompt->system.data != NULL, prompt->system.data,
                  prompt->system.size, prompt->text.data, prompt->text.size, prompt->max_tokens, &out);
    REFUSED("ai.complete");
    if (out.failed) return (ks_completion){0};
    return (ks_completion){ks_given(out.completion.text), out.completion.model, out.completion.tokens};
}

IMPORT("notify", "send")
void host_notify(const char *channel, size_t channel_size, const char *recipient, size_t recipient_size,
                 const char *subject, size_t subject_size, const char *body, size_t body_size, answer *out);

ks_text ks_notify_send(const ks_notice *notice, ks_failure *failure) {
    answer out = {0};
    host_notify(notice->channel.data, notice->channel.size, notice->recipient.data, notice->recipient.size,
                notice->subject.data, notice->subject.size, notice->body.data, notice->body.size, &out);
    REFUSED("notify.send");
    return out.failed ? (ks_text){0} : ks_given(out.text);
}

IMPORT("clock", "now") void host_now(number_answer *out);
IMPORT("clock", "monotonic") void host_monotonic(number_answer *out);

uint64_t ks_clock_now(ks_failure *failure) {
    number_answer out = {0};
    host_now(&out);
    REFUSED("clock.now");
    return out.failed ? 0 : out.number;
}

uint64_t ks_clock_monotonic(ks_failure *failure) {
    number_answer out = {0};
    host_monotonic(&out);
    REFUSED("clock.monotonic");
    return out.failed ? 0 : out.number;
}

IMPORT("random", "number") void host_random(number_answer *out);
IMPORT("random", "hex") void host_random_hex(uint32_t bytes, answer *out);

uint64_t ks_random_number(ks_failure *failure) {
    number_answer out = {0};
    host_random(&out);
    REFUSED("random.number");
    return out.failed ? 0 : out.number;
}

ks_text ks_random_hex(uint32_t bytes, ks_failure *failure) {
    answer out = {0};
    host_random_hex(bytes, &out);
    REFUSED("random.hex");
    return out.failed ? (ks_text){0} : out.text;
}

IMPORT("services", "call")
void host_service(const char *plugin, size_t plugin_size, const char *method, size_t method_size, const char *payload,
                  size_t payload_size, answer *out);

ks_json *ks_services_call(ks_text plugin, ks_text method, const ks_json *payload, ks_failure *failure) {
    answer out = {0};
    const ks_text sent = ks_json_write(payload);
    host_service(plugin.data, plugin.size, method.data, method.size, sent.data, sent.size, &out);
    REFUSED("services.call");
    return out.failed ? NULL : ks_json_parse(out.text);
}
