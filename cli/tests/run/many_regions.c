// Calls on memory in many regions, for which the runtime makes long lists, take and leave no addresses.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "status.h"

enum { PAGES = 12000, PAGE = 4096 };

int main(void) {
    size_t len = (size_t)PAGES * PAGE;
    char *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    // More than the limit.
    char *other = malloc(8 << 20);
    if (memory == MAP_FAILED || !other) return 1;
    memset(other, 1, 8 << 20);
    for (size_t at = 0; at < len; at += 2 * PAGE) {
        if (mprotect(memory + at, PAGE, PROT_READ)) return 1;
    }
    long before = 0;
    for (int round = 0; round < 24; round++) {
        if (round == 4) before = size_of("VmSize:");
        if (madvise(memory, len, MADV_DONTNEED)) return 1;
    }
    printf("%ld MiB more\n", (size_of("VmSize:") - before) / 1024);
}
