/* Attacks by name, as a C author would write them by mistake or on purpose. */
#include <keelstone.h>
#include <stdlib.h>
#include <unistd.h>

static volatile int sink;
static volatile char *volatile kept;

static int deeper(int n) {
    volatile char room[512];
    room[n % 512] = (char)n;
    return deeper(n + 1) + room[(n + 7) % 512];
}

static void attack(ks_text name) {
    if (ks_equal(name, KS("loop"))) while (1) sink++;
    if (ks_equal(name, KS("recursion"))) sink = deeper(1);
    if (ks_equal(name, KS("memory"))) while (1) { if (!(kept = malloc(1 << 20))) abort(); kept[sink] = 1; }
    if (ks_equal(name, KS("abort"))) abort();
    if (ks_equal(name, KS("wild"))) sink = *(volatile int *)0xfffffff0;
    if (ks_equal(name, KS("flood"))) while (1) ks_log_info(KS("noise"));
    if (ks_equal(name, KS("exit"))) exit(0);
    if (ks_equal(name, KS("sleep"))) sleep(3600);
}

ks_filter_reply user_creating(ks_user_draft *draft) {
    attack(draft->name);
    return ks_keep();
}
