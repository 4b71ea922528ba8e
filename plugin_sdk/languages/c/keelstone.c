/* Memory of one call, text, replies, and the exports that the component model asks for. */
#include "keelstone_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- memory */

/* All memory of a call comes from these blocks and is given back together once the answer is taken. */
typedef struct block {
    struct block *before;
    size_t used, size;
    _Alignas(8) char bytes[];
} block;

enum { BLOCK = 16384 };
static block *blocks;

void *ks_alloc(size_t size) {
    const size_t wanted = (size + 8) & ~(size_t)7; /* at least one byte more: text ends in a zero */
    if (wanted < size) abort();
    if (!blocks || blocks->size - blocks->used < wanted) {
        const size_t room = wanted > BLOCK ? wanted : BLOCK;
        block *fresh = malloc(sizeof(block) + room);
        if (!fresh) abort();
        *fresh = (block){.before = blocks, .used = 0, .size = room};
        blocks = fresh;
    }
    void *at = blocks->bytes + blocks->used;
    blocks->used += wanted;
    return memset(at, 0, wanted);
}

__attribute__((export_name("cabi_realloc"))) void *ks_realloc(void *old, size_t old_size, size_t alignment,
                                                              size_t size) {
    (void)alignment; /* at most 8, as ks_alloc gives */
    void *fresh = ks_alloc(size);
    if (old) memcpy(fresh, old, old_size < size ? old_size : size);
    return fresh;
}

__attribute__((export_name("cabi_post_handle"))) void ks_end(const void *result) {
    (void)result;
    while (blocks) {
        block *before = blocks->before;
        free(blocks);
        blocks = before;
    }
    ks_unseen = (ks_text){0};
}

/* ---------------------------------------------------------------- text */

ks_text ks_unseen;

ks_text ks_string(const char *string) { return (ks_text){string, strlen(string)}; }

bool ks_equal(ks_text one, ks_text other) {
    return one.size == other.size && (one.size == 0 || memcmp(one.data, other.data, one.size) == 0);
}

size_t ks_characters(ks_text text) {
    size_t count = 0;
    for (size_t i = 0; i < text.size; i++) count += ((unsigned char)text.data[i] & 0xC0) != 0x80;
    return count;
}

ks_text ks_join(ks_text one, ks_text other) {
    char *both = ks_alloc(one.size + other.size);
    if (one.size) memcpy(both, one.data, one.size);
    if (other.size) memcpy(both + one.size, other.data, other.size);
    return (ks_text){both, one.size + other.size};
}

ks_text ks_given(ks_text text) { return text.size ? text : KS(""); }

ks_text ks_format(const char *format, ...) {
    va_list measured, written;
    va_start(measured, format);
    va_copy(written, measured);
    const int size = vsnprintf(NULL, 0, format, measured);
    va_end(measured);
    char *text = ks_alloc(size < 0 ? 0 : (size_t)size);
    if (size > 0) vsnprintf(text, (size_t)size + 1, format, written);
    va_end(written);
    return (ks_text){text, size < 0 ? 0 : (size_t)size};
}

/* ---------------------------------------------------------------- replies */

static ks_text wrapped(const char *name, ks_json *inner) {
    return ks_json_write(ks_json_set(ks_json_object(), ks_string(name), inner));
}

static ks_decide_reply decision(bool allow, ks_text reason) {
    ks_json *answer = ks_json_set(ks_json_object(), KS("allow"), ks_json_bool(allow));
    return (ks_decide_reply){false, wrapped("answer", ks_json_set(answer, KS("reason"), ks_json_text(reason)))};
}

ks_filter_reply ks_keep(void) { return (ks_filter_reply){false, KS("{}")}; }

ks_filter_reply ks_reject(ks_text reason) {
    return (ks_filter_reply){
        false, wrapped("reject", ks_json_set(ks_json_object(), KS("reason"), ks_json_text(reason)))};
}

ks_filter_reply ks_filter_failed(ks_text message) { return (ks_filter_reply){true, message}; }
ks_filter_reply ks_change_json(ks_json *payload) { return (ks_filter_reply){false, wrapped("payload", payload)}; }
ks_decide_reply ks_allow(ks_text reason) { return decision(true, reason); }
ks_decide_reply ks_deny(ks_text reason) { return decision(false, reason); }
ks_decide_reply ks_abstain(void) { return (ks_decide_reply){false, KS("{}")}; }
ks_decide_reply ks_decide_failed(ks_text message) { return (ks_decide_reply){true, message}; }
ks_observe_reply ks_done(void) { return (ks_observe_reply){false, KS("{\"done\":true}")}; }
ks_observe_reply ks_retry(ks_text message) { return (ks_observe_reply){true, message}; }

ks_result *ks_answer(bool failed, ks_text body) {
    ks_result *result = ks_alloc(sizeof(ks_result));
    *result = (ks_result){failed || ks_unseen.data != NULL, ks_unseen.data ? ks_unseen : body};
    return result;
}
