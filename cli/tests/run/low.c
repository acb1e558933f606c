// Memory at address 0, which an administrator's program may map.

#define _GNU_SOURCE
#include "check.h"
#include <stdlib.h>
#include <sys/mman.h>

#define LEN (8ul << 20)
#define PAGE 4096

static volatile char *const LOW = 0;

static void press(void) {
    char *memory = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    memset(memory, 1, LEN);
    munmap(memory, LEN);
}

int main(void) {
    char *high = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(high != MAP_FAILED);
    memset(high, 7, LEN);

    void *moved = mremap(high, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, LOW);
    if (moved == MAP_FAILED) {
        printf("moved: %s\n", strerror(errno));
        return 0;
    }
    press();
    printf("moved %p: %d\n", moved, LOW[5]);
    CHECK(mremap(high + PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, LOW) == LOW);
    press();
    printf("moved again: %d, left %d\n", LOW[6], high[PAGE]);
    CHECK(mremap((void *)LOW, PAGE, 3 * PAGE, 0) == LOW);
    LOW[2 * PAGE] = 3;
    press();
    printf("grown: %d %d\n", LOW[7], LOW[2 * PAGE]);
    CHECK(!munmap((void *)LOW, 3 * PAGE));
    CHECK(mmap((void *)LOW, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == LOW);
    LOW[0] = 9;
    press();
    printf("mapped: %d\n", LOW[0]);
    return 0;
}
