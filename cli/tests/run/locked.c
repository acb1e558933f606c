// Locked memory grows and gets rights, and a child does not inherit the locks.

#define _GNU_SOURCE
#include "check.h"
#include <sys/mman.h>
#include <sys/wait.h>

#define PAGE 4096ul

static int resident(char *at, int pages) {
    unsigned char page[64];
    int sum = 0;
    CHECK(!mincore(at, pages * PAGE, page));
    for (int i = 0; i < pages; i++) sum += page[i] & 1;
    return sum;
}

static char *map(int pages, int rights) {
    char *at = mmap(NULL, pages * PAGE, rights, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

// Advice that the kernel refuses for locked memory.
static const char *locked(char *at) { return madvise(at, PAGE, MADV_COLD) ? strerrorname_np(errno) : "not locked"; }

static char *grown_break(void) {
    char *at = (char *)(((unsigned long)sbrk(0) + PAGE - 1) & -PAGE);
    CHECK(sbrk(9 * PAGE) != (void *)-1);
    return at;
}

static void show(const char *what, char *at, int pages) { printf("%s: %d resident, %s\n", what, resident(at, pages), locked(at)); }

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    char *own = map(8, PROT_READ | PROT_WRITE);
    CHECK(!mlock(own, 8 * PAGE));
    own = mremap(own, 8 * PAGE, 16 * PAGE, MREMAP_MAYMOVE);
    show("grown", own, 16);
    pid_t child = fork();
    if (!child) {
        printf("the child's: %s\n", locked(own));
        _exit(0);
    }
    CHECK(waitpid(child, NULL, 0) == child);
    show("the parent's", own, 16);

    CHECK(!mlockall(MCL_CURRENT | MCL_FUTURE));
    child = fork();
    if (!child) {
        show("the child's new memory", map(8, PROT_READ | PROT_WRITE), 8);
        show("the child's heap", grown_break(), 8);
        _exit(0);
    }
    CHECK(waitpid(child, NULL, 0) == child);
    show("heap", grown_break(), 8);
    char *later = map(8, PROT_NONE);
    CHECK(!mprotect(later, 8 * PAGE, PROT_READ | PROT_WRITE));
    show("with rights", later, 8);
    later = mremap(later, 8 * PAGE, 24 * PAGE, MREMAP_MAYMOVE);
    show("grown", later, 24);
    char *place = map(40, PROT_NONE);
    later = mremap(later, 24 * PAGE, 32 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    show("moved", later, 32);
    later = mremap(later, 32 * PAGE, 8 * PAGE, 0);
    show("shrunk", later, 8);
    CHECK(!munlockall());
    printf("unlocked: %s\n", locked(later));
    show("heap", grown_break(), 8);
    CHECK(!mlock2(later, 8 * PAGE, MLOCK_ONFAULT));
    later = mremap(later, 8 * PAGE, 12 * PAGE, MREMAP_MAYMOVE);
    show("on fault", later, 12);
    return 0;
}
