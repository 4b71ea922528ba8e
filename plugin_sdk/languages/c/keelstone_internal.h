/* What the parts of the guest library share, and plugins do not need. */
#ifndef KEELSTONE_INTERNAL_H
#define KEELSTONE_INTERNAL_H

#include "keelstone.h"

/* The first refusal that nobody looked at; it ends the call. */
extern ks_text ks_unseen;

ks_text ks_join(ks_text one, ks_text other);
/* Text from the host: where it is empty, it still has data, so that it can be told from none. */
ks_text ks_given(ks_text text);
/* The strings of a list; other items are left out. */
ks_texts ks_json_as_texts(const ks_json *value);
ks_json *ks_json_of_texts(ks_texts texts);
/* The value if it is an object, else an empty one. */
ks_json *ks_json_as_object(ks_json *value);

/* The result of `handle`: result<string, string>. */
typedef struct {
    uint8_t failed;
    ks_text text;
} ks_result;

ks_result *ks_answer(bool failed, ks_text body);

#endif
