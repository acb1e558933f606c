/* Mappings of more than any machine has: what the kernel refuses is refused, and what it gives costs only what
 * is touched. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define PAGES 512ul
#define TiB (1ul << 40)
#define BOTH (PROT_READ | PROT_WRITE)
#define PRIVATE (MAP_PRIVATE | MAP_ANONYMOUS)

static const unsigned long lengths[] = {TiB, 16 * TiB, 64 * TiB, 127 * TiB, 128 * TiB, 1ul << 63};

static const char *said(const void *result) { return result == MAP_FAILED ? strerrorname_np(errno) : "ok"; }

/* Pages all over a mapping, each with a value of its own, and zeros behind it. */
static char value(unsigned long page) { return page % 100 + 1; }

static void touch(char *start, unsigned long len) {
    for (unsigned long page = 0; page < PAGES; page++) start[page * (len / PAGES)] = value(page);
}

static unsigned wrong(const char *start, unsigned long len, unsigned long pages) {
    unsigned count = 0;
    for (unsigned long page = 0; page < pages; page++) {
        const char *at = start + page * (len / PAGES);
        count += at[0] != value(page) || at[1] != 0 || at[PAGE] != 0;
    }
    return count;
}

/* Uses a mapping in the ways that go through all of it. */
static void use(char *start, unsigned long len) {
    touch(start, len);
    printf(", wrong %u", wrong(start, len, PAGES));
    if (fork() == 0) _exit(wrong(start, len, PAGES) != 0);
    int status;
    wait(&status);
    printf(", in a child %d", WEXITSTATUS(status));
    printf(", protect %d %d", mprotect(start, len, PROT_READ), mprotect(start, len, BOTH));
    printf(", discard %d, wrong %u", madvise(start + len / 2, len / 2, MADV_DONTNEED), wrong(start, len, PAGES / 2));
    printf(", zero %d", start[len / 2]);
}

/* Makes it shorter and longer again. Returns its length. */
static unsigned long resize(char **start, unsigned long len) {
    char *less = mremap(*start, len, len / 2, 0);
    printf(", less %s, wrong %u", said(less), wrong(*start, len, PAGES / 2));
    char *more = mremap(*start, len / 2, len, MREMAP_MAYMOVE);
    printf(", more %s", said(more));
    if (more == MAP_FAILED) return len / 2;
    printf(", end %d", more[len - 1]);
    *start = more;
    return len;
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        unsigned long len = lengths[i];
        void *block = malloc(len);
        printf("%lx: malloc %d", len, block != NULL);
        free(block);
        char *plain = mmap(NULL, len, BOTH, PRIVATE, -1, 0);
        printf(", map %s", said(plain));
        if (plain != MAP_FAILED) munmap(plain, len);

        char *grown = mmap(NULL, 2 * PAGE, BOTH, PRIVATE, -1, 0);
        memset(grown, 5, 2 * PAGE);
        char *moved = mremap(grown, 2 * PAGE, len, MREMAP_MAYMOVE);
        printf(", grow %s", said(moved));
        if (moved == MAP_FAILED) moved = grown;
        printf(", content %d", moved[0] == 5 && moved[2 * PAGE - 1] == 5);
        printf(", unmap %d\n", munmap(moved, moved == grown ? 2 * PAGE : len));

        char *sparse = mmap(NULL, len, BOTH, PRIVATE | MAP_NORESERVE, -1, 0);
        printf("  sparse %s", said(sparse));
        if (sparse == MAP_FAILED) {
            printf("\n");
            continue;
        }
        use(sparse, len);
        unsigned long now = resize(&sparse, len);
        printf(", unmap %d\n", munmap(sparse, now));
    }
    return 0;
}
