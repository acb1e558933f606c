/* The limits of address space and of data are about the program's own mappings; and calls about ranges
 * that are none have the kernel's errors. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MiB (1ul << 20)

static const char *said(long result) { return result == -1 ? strerrorname_np(errno) : "ok"; }

static void *map(size_t len, int protection)
{
    return mmap(NULL, len, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* How many MiB can be mapped: so many, but for a few that the program itself and its libraries have. */
static unsigned long room(int protection, unsigned long about)
{
    unsigned long pieces = 0;
    void *piece[4096];
    while (pieces < 4096 && (piece[pieces] = map(MiB, protection)) != MAP_FAILED)
        pieces++;
    for (unsigned long i = 0; i < pieces; i++)
        munmap(piece[i], MiB);
    return pieces <= about && about - pieces < 32 ? about : pieces;
}

static void limit(int resource, unsigned long soft, unsigned long hard)
{
    struct rlimit limit = {soft, hard}, now;
    printf("set %s", said(setrlimit(resource, &limit)));
    getrlimit(resource, &now);
    printf(", now %lu %lu\n", now.rlim_cur / MiB, now.rlim_max / MiB);
}

static void limits(void)
{
    limit(RLIMIT_AS, 512 * MiB, 1024 * MiB);
    printf("room %lu, without rights %lu\n", room(PROT_READ | PROT_WRITE, 512), room(PROT_NONE, 512));
    char *memory = malloc(100 * MiB);
    printf("malloc %d\n", memory != NULL);
    memset(memory, 1, 100 * MiB);
    printf("room %lu\n", room(PROT_READ | PROT_WRITE, 412));
    char *moved = mremap(map(MiB, PROT_READ | PROT_WRITE), MiB, 800 * MiB, MREMAP_MAYMOVE);
    printf("grows %s", said(moved == MAP_FAILED ? -1 : 0));
    /* What is replaced does not count twice. */
    char *all = map(300 * MiB, PROT_NONE);
    printf(", maps %s", said(all == MAP_FAILED ? -1 : 0));
    all = mmap(all, 300 * MiB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    printf(", again %s", said(all == MAP_FAILED ? -1 : 0));
    printf(", break %s\n", sbrk(300 * MiB) == (void *)-1 ? "refused" : "grown");
    munmap(all, 300 * MiB);
    fflush(stdout);
    if (fork() == 0) {
        printf("a child's room %lu\n", room(PROT_READ | PROT_WRITE, 412));
        fflush(stdout);
        /* A program that is executed has the limit too. */
        execl("/proc/self/exe", "space", "child", NULL);
    }
    wait(NULL);
    limit(RLIMIT_AS, 1024 * MiB, 1024 * MiB);
    limit(RLIMIT_DATA, 256 * MiB, 512 * MiB);
    printf("room for data %lu, for reading %lu\n", room(PROT_READ | PROT_WRITE, 156), room(PROT_READ, 924));
    char *made_data = map(256 * MiB, PROT_READ);
    printf("writable %s\n", said(mprotect(made_data, 256 * MiB, PROT_READ | PROT_WRITE)));
}

static void arguments(void)
{
    static const unsigned long lengths[] = {0, 1, 4095, -1ul, -4095ul, -4096ul, 1ul << 63, (1ul << 47) - 4096, 1ul << 47};
    char *memory = map(16 * 4096, PROT_READ | PROT_WRITE);
    memset(memory, 7, 16 * 4096);
    char *last = memory + 15 * 4096;
    for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        unsigned long len = lengths[i];
        printf("%lx: madvise %s", len, said(madvise(last, len, MADV_WILLNEED)));
        printf(", unaligned %s", said(madvise(last + 1, len, MADV_DONTNEED)));
        printf(", mprotect unaligned %s", said(mprotect(last + 1, len, PROT_READ)));
        printf(", munmap unaligned %s", said(munmap(last + 1, len)));
        printf(", mremap unaligned %s", said((long)mremap(last + 1, 4096, len, 0)));
        printf(", mremap %s", said(len > 1ul << 48 ? (long)mremap(last, len, 4096, 0) : 0));
        printf(", map at an odd address %s\n", said((long)mmap(last + 1, len, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)));
    }
    unsigned wrong = 0;
    for (unsigned i = 0; i < 16 * 4096; i++)
        wrong += memory[i] != 7;
    printf("wrong %u\n", wrong);
    if (geteuid() == 0) {
        char *null = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        printf("at 0: %s\n", said((long)null));
        if (null != MAP_FAILED)
            munmap(null, 8192);
    }
}

int main(int count, char **arguments_given)
{
    if (count > 1) {
        struct rlimit now;
        getrlimit(RLIMIT_AS, &now);
        printf("a program's limit %lu %lu, room %lu\n", now.rlim_cur / MiB, now.rlim_max / MiB, room(PROT_READ | PROT_WRITE, 512));
        return 0;
    }
    arguments();
    limits();
    return 0;
}
