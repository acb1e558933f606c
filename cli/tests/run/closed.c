// Every call that takes descriptors finds those closed that the program has not opened: it answers as for a number that
// no table of descriptors reaches. Reads lines of a call's number, its name and a letter for each argument: `f` a
// descriptor, `s` a string, `a` an address, `v` a number.

#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define END 4096
#define CLOSED 0x7ffffff0

static char memory[1 << 16];
static int null, own;

static long answer(long call, const char *kinds, int index, long number, const char *path) {
    long args[6] = {0};
    memset(memory, 0, sizeof memory);
    for (int i = 0; kinds[i]; i++) {
        char kind = kinds[i];
        args[i] = kind == 'f' ? null : kind == 's' ? (long)path : kind == 'a' ? (long)memory : 0;
    }
    args[index] = number;
    errno = 0;
    long raw = syscall(call, args[0], args[1], args[2], args[3], args[4], args[5]);
    return raw == -1 ? -errno : raw;
}

int main(void) {
    CHECK((null = open("/dev/null", O_RDWR)) >= 0);
    own = null + 1;
    CHECK(!close_range(own, ~0u, 0));
    long call;
    char name[64], kinds[8];
    int calls = 0;
    while (scanf("%ld %63s %7s", &call, name, kinds) == 3) {
        calls++;
        for (int i = 0; kinds[i]; i++) {
            if (kinds[i] != 'f')
                continue;
            for (int form = 0; form < 2; form++) {
                const char *path = form ? "/missing/file" : "missing";
                long right = answer(call, kinds, i, CLOSED, path);
                for (int n = own; n < END; n++) {
                    long found = answer(call, kinds, i, n, path);
                    if (found != right)
                        printf("%s, argument %d: %ld instead of %ld for %d\n", name, i, found, right, n);
                }
            }
        }
    }
    CHECK(calls > 100);
    puts("done");
    return 0;
}
