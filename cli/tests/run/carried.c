// mremap carries several mappings of one length to a place, gaps kept, whether their pages are there or not.
#define _GNU_SOURCE
#include "check.h"
#include <sys/mman.h>
#include <sys/uio.h>

enum { PAGE = 4096, PAGES = 12 };

static char *reserve(void) {
    char *at = mmap(NULL, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED && munmap(at, 64 * PAGE) == 0);
    return at;
}

// Memory, read-only memory, a gap, shared memory, memory.
static void make(char *at) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, rights = PROT_READ | PROT_WRITE;
    CHECK(mmap(at, PAGES * PAGE, rights, flags, -1, 0) == at);
    CHECK(mmap(at + 7 * PAGE, 2 * PAGE, rights, flags ^ MAP_PRIVATE ^ MAP_SHARED, -1, 0) != MAP_FAILED);
    for (int i = 0; i < PAGES; i++) at[i * PAGE] = i + 1;
    CHECK(mprotect(at + 3 * PAGE, 2 * PAGE, PROT_READ) == 0);
    CHECK(munmap(at + 5 * PAGE, 2 * PAGE) == 0);
}

static void show(const char *name, char *at) {
    printf("%s:", name);
    for (int i = 0; i < PAGES; i++) {
        char byte = 0;
        struct iovec to = {&byte, 1}, from = {at + i * PAGE, 1};
        if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1)
            printf(" %d", byte);
        else
            printf(" -");
    }
    printf("\n");
}

static void carry(char *from, int first, int pages, int flags) {
    char *to = reserve();
    void *at = mremap(from + first * PAGE, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED | flags, to);
    printf("%s\n", at == to ? "carried" : at == MAP_FAILED ? strerror(errno) : "elsewhere");
    show("from", from);
    show("to", to);
    if (at == to && to[0]) {
        to[0]++;
        printf("stored %d\n", to[0]);
    }
    munmap(to, 64 * PAGE);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    for (int pressed = 0; pressed < 2; pressed++) {
        for (int way = 0; way < 5; way++) {
            char *from = reserve();
            make(from);
            if (pressed) {
                volatile char *much = mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                for (int i = 0; i < 2 * (8 << 20); i += PAGE) much[i % (8 << 20)] = i;
                munmap((void *)much, 8 << 20);
            }
            switch (way) {
            case 0: carry(from, 0, PAGES, 0); break;
            case 1: carry(from, 1, 3, 0); break;
            case 2: carry(from, 0, PAGES, 4 /* MREMAP_DONTUNMAP */); break;
            case 3: carry(from, 5, 4, 0); break;
            case 4: carry(from, 2, 4, 0); break;
            }
            munmap(from, 64 * PAGE);
        }
    }
    return 0;
}
