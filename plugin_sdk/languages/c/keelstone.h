/*
 * Keelstone's guest library for C.
 *
 * Write one function for each hook of the manifest, with the hook's name; its prototype comes with this
 * header, so a wrong one does not compile:
 *
 *     #include <keelstone.h>
 *
 *     ks_filter_reply user_creating(ks_user_draft *draft) {
 *         if (draft->name.size == 0) return ks_reject(KS("Please tell us your name."));
 *         return ks_keep();
 *     }
 *
 * Everything that these functions hand out lives until the call ends; nothing needs to be freed. Text
 * is UTF-8 with its size, because it may hold zero bytes; one more zero byte always follows it. What
 * is printed to standard output or error is written to the plugin's log.
 *
 * Host calls are named after their capability: ks_log_*, ks_config_*, ks_kv_*, ks_http_* and so on.
 * Their last argument takes the host's refusal; with NULL there, a refusal fails the whole call once
 * the hook's function returns, and nothing that it did is kept. Using a capability that the manifest
 * does not ask for stops the build with a message that says so.
 */
#ifndef KEELSTONE_H
#define KEELSTONE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---------------------------------------------------------------- text */

typedef struct {
    const char *data; /* NULL where there is no text at all */
    size_t size;
} ks_text;

/* A literal as text. */
#define KS(literal) ((ks_text){"" literal, sizeof(literal) - 1})

/* A C string as text, not copied. */
ks_text ks_string(const char *string);
bool ks_equal(ks_text one, ks_text other);
/* How many characters (code points) the text has. */
size_t ks_characters(ks_text text);
/* Text from a format and arguments, as printf takes them. */
ks_text ks_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Memory that lives until the call ends, zeroed. */
void *ks_alloc(size_t size);

/* ---------------------------------------------------------------- JSON */

typedef enum { KS_NULL, KS_BOOL, KS_NUMBER, KS_TEXT, KS_LIST, KS_OBJECT } ks_kind;

/* A value. Objects keep the order of their members, numbers their text. Read it through the functions. */
typedef struct ks_json {
    ks_kind kind;
    bool flag;
    ks_text text; /* of a string or a number */
    ks_text name; /* in an object: the member's */
    size_t count; /* items of a list, members of an object */
    struct ks_json *first, *last, *next;
} ks_json;

/* The value in `source`, NULL if it is not JSON or is nested more than 64 deep. */
ks_json *ks_json_parse(ks_text source);
ks_text ks_json_write(const ks_json *value);

ks_json *ks_json_null(void);
ks_json *ks_json_bool(bool value);
ks_json *ks_json_integer(int64_t value);
ks_json *ks_json_number(double value);
ks_json *ks_json_text(ks_text value);
ks_json *ks_json_list(void);
ks_json *ks_json_object(void);

/* The member `name`, NULL if there is none or `object` is no object (or NULL). */
ks_json *ks_json_get(const ks_json *object, ks_text name);
/* Set a member, or append an item; the value must not be elsewhere already. Both return their first argument. */
ks_json *ks_json_set(ks_json *object, ks_text name, ks_json *value);
ks_json *ks_json_push(ks_json *list, ks_json *value);

/* The value if it is of that kind, else `otherwise`. NULL is of no kind. */
ks_text ks_json_as_text(const ks_json *value, ks_text otherwise);
int64_t ks_json_as_integer(const ks_json *value, int64_t otherwise);
double ks_json_as_number(const ks_json *value, double otherwise);
bool ks_json_as_bool(const ks_json *value, bool otherwise);

/* ---------------------------------------------------------------- what hooks receive */

typedef struct {
    const ks_text *items;
    size_t count;
} ks_texts;

#include <keelstone_payloads.h> /* generated from the hooks' schemas at every build */

/* ---------------------------------------------------------------- what hooks answer */

typedef struct { bool failed; ks_text body; } ks_filter_reply;
typedef struct { bool failed; ks_text body; } ks_decide_reply;
typedef struct { bool failed; ks_text body; } ks_observe_reply;

/* Filters: leave the payload, refuse it with a reason for the caller (ks_change is with the payloads). */
ks_filter_reply ks_keep(void);
ks_filter_reply ks_reject(ks_text reason);
ks_filter_reply ks_filter_failed(ks_text message);
ks_filter_reply ks_change_json(ks_json *payload);

ks_decide_reply ks_allow(ks_text reason);
ks_decide_reply ks_deny(ks_text reason);
ks_decide_reply ks_abstain(void);
ks_decide_reply ks_decide_failed(ks_text message);

ks_observe_reply ks_done(void);
/* Not done: the event comes again later. */
ks_observe_reply ks_retry(ks_text message);

#include <keelstone_hooks.h> /* generated: the functions that the plugin writes */

/* ---------------------------------------------------------------- host calls */

/* Why the host refused; `code` is stable (keelstone.wit lists them): not-granted, invalid, denied, ... */
typedef struct {
    bool failed;
    ks_text code, message;
} ks_failure;

void ks_log_debug(ks_text line);
void ks_log_info(ks_text line);
void ks_log_warn(ks_text line);
void ks_log_error(ks_text line);

/* One setting of the tenant, NULL if it is not set. */
ks_json *ks_config_get(ks_text key, ks_failure *failure);
ks_text ks_config_text(ks_text key, ks_text otherwise);
int64_t ks_config_integer(ks_text key, int64_t otherwise);
double ks_config_number(ks_text key, double otherwise);
bool ks_config_flag(ks_text key, bool otherwise);
ks_texts ks_config_list(ks_text key);

/* The value of a key; its data is NULL if there is none. */
ks_text ks_kv_get(ks_text key, ks_failure *failure);
void ks_kv_set(ks_text key, ks_text value, ks_failure *failure);
void ks_kv_delete(ks_text key, ks_failure *failure);
/* Keys that begin with `prefix`, in order, at most `limit`. */
ks_texts ks_kv_keys(ks_text prefix, uint32_t limit, ks_failure *failure);
/* Write only if the key has the value `expected` (data NULL: there is no such key). False if not. */
bool ks_kv_set_if(ks_text key, ks_text value, ks_text expected, ks_failure *failure);
/* Write a value that is gone after so many seconds. */
void ks_kv_set_for(ks_text key, ks_text value, uint32_t seconds, ks_failure *failure);
/* The values of several keys, in that order; data NULL where there is none. */
ks_texts ks_kv_get_many(ks_texts keys, ks_failure *failure);

typedef struct { ks_text key, value; } ks_entry;

/* Write several values: all of them, or none if one is refused. */
void ks_kv_set_many(const ks_entry *entries, size_t count, ks_failure *failure);

typedef struct { ks_text name, value; } ks_header;
typedef struct {
    ks_text method, url;
    const ks_header *headers;
    size_t header_count;
    ks_text body; /* data NULL: no body */
} ks_request;
typedef struct {
    uint16_t status;
    const ks_header *headers;
    size_t header_count;
    ks_text body;
} ks_response;

/* The answer, whatever its status. */
ks_response ks_http_send(const ks_request *request, ks_failure *failure);
/* The first header of that name, in any case; its data is NULL if there is none. */
ks_text ks_http_header(const ks_response *response, ks_text name);

/* Emit one event; it is saved if the call succeeds. */
void ks_events_emit(ks_text type, const ks_json *data, ks_failure *failure);

/* Text that stands for a secret in this call's requests: the host puts the value in its place. */
ks_text ks_secrets_placeholder(ks_text name, ks_failure *failure);

typedef struct {
    ks_text model, system, text; /* system may have data NULL */
    uint32_t max_tokens;
} ks_prompt;
typedef struct {
    ks_text text, model;
    uint32_t tokens; /* both ways */
} ks_completion;

/* What a language model answers. */
ks_completion ks_ai_complete(const ks_prompt *prompt, ks_failure *failure);

typedef struct { ks_text channel, recipient, subject, body; } ks_notice;

/* Tell a person something; the message's id once it is accepted for delivery. */
ks_text ks_notify_send(const ks_notice *notice, ks_failure *failure);

/* Milliseconds since 1970-01-01T00:00Z; nanoseconds that never go back. */
uint64_t ks_clock_now(ks_failure *failure);
uint64_t ks_clock_monotonic(ks_failure *failure);

/* Unpredictable numbers, fit for keys; so many random bytes (1 to 1024) as hexadecimal text. */
uint64_t ks_random_number(ks_failure *failure);
ks_text ks_random_hex(uint32_t bytes, ks_failure *failure);

/* The answer of another plugin's method, in this call's tenant. */
ks_json *ks_services_call(ks_text plugin, ks_text method, const ks_json *payload, ks_failure *failure);

#endif
