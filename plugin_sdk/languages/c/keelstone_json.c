/* JSON (RFC 8259) as a tree of values. */
#include "keelstone_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 64 }; /* a payload must not be able to exhaust the stack */

/* ---------------------------------------------------------------- making and reading values */

static ks_json *made(ks_kind kind) {
    ks_json *value = ks_alloc(sizeof(ks_json));
    value->kind = kind;
    return value;
}

ks_json *ks_json_null(void) { return made(KS_NULL); }
ks_json *ks_json_list(void) { return made(KS_LIST); }
ks_json *ks_json_object(void) { return made(KS_OBJECT); }

ks_json *ks_json_bool(bool flag) {
    ks_json *value = made(KS_BOOL);
    value->flag = flag;
    return value;
}

ks_json *ks_json_text(ks_text text) {
    ks_json *value = made(KS_TEXT);
    value->text = text;
    return value;
}

static ks_json *numeral(ks_text text) {
    ks_json *value = made(KS_NUMBER);
    value->text = text;
    return value;
}

ks_json *ks_json_integer(int64_t number) {
    char digits[24];
    char *at = digits + sizeof digits;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do *--at = (char)('0' + rest % 10);
    while (rest /= 10);
    if (number < 0) *--at = '-';
    return numeral(ks_join((ks_text){at, (size_t)(digits + sizeof digits - at)}, KS("")));
}

ks_json *ks_json_number(double number) {
    return isfinite(number) ? numeral(ks_format("%.17g", number)) : ks_json_null();
}

ks_json *ks_json_get(const ks_json *object, ks_text name) {
    if (!object || object->kind != KS_OBJECT) return NULL;
    for (ks_json *member = object->first; member; member = member->next)
        if (ks_equal(member->name, name)) return member;
    return NULL;
}

ks_json *ks_json_push(ks_json *list, ks_json *value) {
    if (list->last) list->last->next = value;
    else list->first = value;
    list->last = value;
    list->count++;
    return list;
}

ks_json *ks_json_set(ks_json *object, ks_text name, ks_json *value) {
    ks_json *before = NULL;
    value->name = name;
    for (ks_json *member = object->first; member; before = member, member = member->next) {
        if (!ks_equal(member->name, name)) continue;
        value->next = member->next;
        if (before) before->next = value;
        else object->first = value;
        if (object->last == member) object->last = value;
        return object;
    }
    return ks_json_push(object, value);
}

ks_text ks_json_as_text(const ks_json *value, ks_text otherwise) {
    return value && value->kind == KS_TEXT ? value->text : otherwise;
}

int64_t ks_json_as_integer(const ks_json *value, int64_t otherwise) {
    return value && value->kind == KS_NUMBER ? strtoll(value->text.data, NULL, 10) : otherwise;
}

double ks_json_as_number(const ks_json *value, double otherwise) {
    return value && value->kind == KS_NUMBER ? strtod(value->text.data, NULL) : otherwise;
}

bool ks_json_as_bool(const ks_json *value, bool otherwise) {
    return value && value->kind == KS_BOOL ? value->flag : otherwise;
}

ks_texts ks_json_as_texts(const ks_json *value) {
    if (!value || value->kind != KS_LIST) return (ks_texts){0};
    ks_text *items = ks_alloc(value->count * sizeof(ks_text));
    size_t count = 0;
    for (ks_json *item = value->first; item; item = item->next)
        if (item->kind == KS_TEXT) items[count++] = item->text;
    return (ks_texts){items, count};
}

ks_json *ks_json_as_object(ks_json *value) {
    return value && value->kind == KS_OBJECT ? value : ks_json_object();
}

ks_json *ks_json_of_texts(ks_texts texts) {
    ks_json *list = ks_json_list();
    for (size_t i = 0; i < texts.count; i++) ks_json_push(list, ks_json_text(texts.items[i]));
    return list;
}

/* ---------------------------------------------------------------- parsing */

typedef struct {
    const char *at, *end;
} reader;

static void skip(reader *in) {
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\t' || *in->at == '\n' || *in->at == '\r')) in->at++;
}

static bool took(reader *in, const char *word) {
    const size_t size = strlen(word);
    if ((size_t)(in->end - in->at) < size || memcmp(in->at, word, size) != 0) return false;
    in->at += size;
    return true;
}

static bool digits(reader *in) {
    const char *begin = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9') in->at++;
    return in->at > begin;
}

static ks_json *number(reader *in) {
    const char *begin = in->at;
    took(in, "-");
    if (!took(in, "0") && !digits(in)) return NULL;
    if (took(in, ".") && !digits(in)) return NULL;
    if (took(in, "e") || took(in, "E")) {
        if (!took(in, "+")) took(in, "-");
        if (!digits(in)) return NULL;
    }
    /* A copy of its own ends in a zero byte, as strtod needs. */
    return numeral(ks_join((ks_text){begin, (size_t)(in->at - begin)}, KS("")));
}

static int32_t unit(reader *in) {
    if (in->end - in->at < 4) return -1;
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        const char digit = *in->at++;
        const char letter = (char)(digit | 0x20);
        if (digit >= '0' && digit <= '9') value = value * 16 + (digit - '0');
        else if (letter >= 'a' && letter <= 'f') value = value * 16 + (letter - 'a' + 10);
        else return -1;
    }
    return value;
}

static char *encoded(char *out, uint32_t point) {
    if (point < 0x80) {
        *out++ = (char)point;
    } else if (point < 0x800) {
        *out++ = (char)(0xC0 | point >> 6);
        *out++ = (char)(0x80 | (point & 0x3F));
    } else if (point < 0x10000) {
        *out++ = (char)(0xE0 | point >> 12);
        *out++ = (char)(0x80 | (point >> 6 & 0x3F));
        *out++ = (char)(0x80 | (point & 0x3F));
    } else {
        *out++ = (char)(0xF0 | point >> 18);
        *out++ = (char)(0x80 | (point >> 12 & 0x3F));
        *out++ = (char)(0x80 | (point >> 6 & 0x3F));
        *out++ = (char)(0x80 | (point & 0x3F));
    }
    return out;
}

/* What follows \u: one code point. Half a surrogate pair, which UTF-8 cannot carry, becomes U+FFFD. */
static bool escaped(reader *in, char **out) {
    int32_t point = unit(in);
    if (point < 0) return false;
    if (point >= 0xD800 && point <= 0xDBFF) {
        reader ahead = *in;
        const int32_t low = took(&ahead, "\\u") ? unit(&ahead) : -1;
        if (low >= 0xDC00 && low <= 0xDFFF) {
            point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
            *in = ahead;
        }
    }
    if (point >= 0xD800 && point <= 0xDFFF) point = 0xFFFD;
    *out = encoded(*out, (uint32_t)point);
    return true;
}

static bool string(reader *in, ks_text *text) {
    if (!took(in, "\"")) return false;
    const char *closing = in->at;
    while (closing < in->end && *closing != '"') closing += *closing == '\\' ? 2 : 1;
    if (closing >= in->end) return false;
    char *out = ks_alloc((size_t)(closing - in->at)); /* no escape is shorter than what it stands for */
    text->data = out;
    while (*in->at != '"') {
        const char letter = *in->at++;
        if ((unsigned char)letter < 0x20) return false;
        if (letter != '\\') {
            *out++ = letter;
            continue;
        }
        static const char named[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
        const char which = *in->at++;
        if (which == 'u') {
            if (!escaped(in, &out)) return false;
            continue;
        }
        size_t at = 0;
        while (named[at] && named[at] != which) at += 2;
        if (!named[at]) return false;
        *out++ = named[at + 1];
    }
    in->at++;
    text->size = (size_t)(out - text->data);
    return true;
}

static ks_json *value(reader *in, int depth);

static ks_json *collection(reader *in, ks_kind kind, int depth) {
    const char *closing = kind == KS_OBJECT ? "}" : "]";
    ks_json *all = made(kind);
    if (depth >= DEEPEST) return NULL;
    skip(in);
    if (took(in, closing)) return all;
    do {
        ks_text name = {0};
        skip(in);
        if (kind == KS_OBJECT) {
            if (!string(in, &name)) return NULL;
            skip(in);
            if (!took(in, ":")) return NULL;
        }
        ks_json *item = value(in, depth + 1);
        if (!item) return NULL;
        if (kind == KS_OBJECT) ks_json_set(all, name, item);
        else ks_json_push(all, item);
        skip(in);
    } while (took(in, ","));
    return took(in, closing) ? all : NULL;
}

static ks_json *value(reader *in, int depth) {
    skip(in);
    if (in->at >= in->end) return NULL;
    if (took(in, "{")) return collection(in, KS_OBJECT, depth);
    if (took(in, "[")) return collection(in, KS_LIST, depth);
    if (took(in, "true")) return ks_json_bool(true);
    if (took(in, "false")) return ks_json_bool(false);
    if (took(in, "null")) return ks_json_null();
    if (*in->at != '"') return number(in);
    ks_text text = {0};
    return string(in, &text) ? ks_json_text(text) : NULL;
}

ks_json *ks_json_parse(ks_text source) {
    reader in = {source.data, source.data + source.size};
    ks_json *found = value(&in, 0);
    skip(&in);
    return in.at == in.end ? found : NULL;
}

/* ---------------------------------------------------------------- writing */

typedef struct {
    char *data;
    size_t size, room;
} buffer;

static void add(buffer *to, ks_text text) {
    if (to->room - to->size < text.size) {
        const size_t room = (to->room + text.size) * 2 + 256;
        char *larger = ks_alloc(room);
        if (to->size) memcpy(larger, to->data, to->size);
        to->data = larger;
        to->room = room;
    }
    if (text.size) memcpy(to->data + to->size, text.data, text.size);
    to->size += text.size;
}

static void quote(buffer *to, ks_text text) {
    static const char hex[] = "0123456789abcdef";
    add(to, KS("\""));
    size_t from = 0;
    for (size_t i = 0; i < text.size; i++) {
        const unsigned char byte = (unsigned char)text.data[i];
        if (byte >= 0x20 && byte != '"' && byte != '\\') continue;
        add(to, (ks_text){text.data + from, i - from});
        from = i + 1;
        if (byte >= 0x20) add(to, (ks_text){(char[]){'\\', (char)byte}, 2});
        else add(to, (ks_text){(char[]){'\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15]}, 6});
    }
    add(to, (ks_text){text.data + from, text.size - from});
    add(to, KS("\""));
}

static void write(buffer *to, const ks_json *one) {
    const bool named = one->kind == KS_OBJECT;
    switch (one->kind) {
        case KS_NULL: add(to, KS("null")); return;
        case KS_BOOL: add(to, one->flag ? KS("true") : KS("false")); return;
        case KS_NUMBER: add(to, one->text); return;
        case KS_TEXT: quote(to, one->text); return;
        default: break;
    }
    add(to, named ? KS("{") : KS("["));
    for (const ks_json *item = one->first; item; item = item->next) {
        if (item != one->first) add(to, KS(","));
        if (named) {
            quote(to, item->name);
            add(to, KS(":"));
        }
        write(to, item);
    }
    add(to, named ? KS("}") : KS("]"));
}

ks_text ks_json_write(const ks_json *one) {
    buffer to = {0};
    write(&to, one);
    return (ks_text){to.data, to.size};
}
