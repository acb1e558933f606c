/* A file's mapping, and private memory behind it: mremap cuts and moves both at once. And a shared segment that
   replaces private memory. */
#define _GNU_SOURCE
#include "check.h"
#include <sys/mman.h>
#include <sys/shm.h>

enum { MIB = 1 << 20, PART = 4 * MIB };

static char *reserve(void)
{
    char *start = mmap(NULL, 3 * PART, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(start != MAP_FAILED);
    return start;
}

static unsigned char content(size_t at) { return at * 7 + at / 4096; }

/* The file's part, then the private one; the private one's start. */
static unsigned char *make(char *start)
{
    int prot = PROT_READ | PROT_WRITE, file = memfd_create("several", 0);
    CHECK(file >= 0 && ftruncate(file, PART) == 0);
    CHECK(mmap(start, PART, prot, MAP_SHARED | MAP_FIXED, file, 0) == start);
    unsigned char *own =
        mmap(start + PART, PART, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(own != MAP_FAILED);
    memset(start, 1, PART);
    for (size_t i = 0; i < PART; i++)
        own[i] = content(i);
    return own;
}

static size_t wrong(const unsigned char *own, size_t len)
{
    size_t wrong = 0;
    for (size_t i = 0; i < len; i++)
        wrong += own[i] != content(i);
    return wrong;
}

/* Memory beyond the limit, so that the rest is evicted. */
static void fill(void)
{
    unsigned char *much = mmap(NULL, 24 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(much != MAP_FAILED);
    memset(much, 2, 24 * MIB);
    munmap(much, 24 * MIB);
}

/* Stores through one address, and looks through another. */
static void attach(void)
{
    unsigned char *own = mmap(NULL, 3 * PART, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < 3 * PART; i++)
        own[i] = content(i);
    int segment = shmget(IPC_PRIVATE, PART, 0600);
    CHECK(segment >= 0);
    unsigned char *there = shmat(segment, own + PART + 7, SHM_REMAP | SHM_RND);
    unsigned char *other = shmat(segment, NULL, 0);
    CHECK(shmctl(segment, IPC_RMID, NULL) == 0 && there == own + PART);
    memset(other, 8, PART);
    fill();
    size_t differ = 0;
    for (size_t i = 0; i < PART; i++)
        differ += there[i] != 8 || own[i] != content(i) || own[2 * PART + i] != content(2 * PART + i);
    printf("differ %zu\n", differ);
    munmap(own, 3 * PART);
}

int main(void)
{
    attach();
    char *moved = reserve(), *cut = reserve(), *to = reserve(), *gone = reserve();
    unsigned char *moved_own = make(moved), *cut_own = make(cut), present;
    make(gone);
    /* Half of the private part goes, and all of another one. */
    CHECK(mremap(cut, 2 * PART, PART + PART / 2, 0) == cut);
    CHECK(mremap(gone, 2 * PART, PART / 2, 0) == gone);
    printf("cut: %d, gone: %d\n", mincore(cut_own + PART / 2, 4096, &present),
           mincore(gone + PART, 4096, &present));
    /* Linux moves several mappings at once since 6.17. */
    if (mremap(moved, 2 * PART, 2 * PART, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to)
        moved_own = (unsigned char *)to + PART;
    fill();
    printf("wrong %zu, %zu\n", wrong(moved_own, PART), wrong(cut_own, PART / 2));
    /* The place is free for other memory. */
    memset(make(gone), 3, PART);
    fill();
    printf("again %d\n", gone[PART]);
    return 0;
}
