/* Calls that the kernel refuses before they change anything: locked mappings, lists of ranges, a child's stack,
   null pointers. */
#define _GNU_SOURCE
#include "check.h"
#include <linux/sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

enum { MIB = 1 << 20, PAGE = 4096 };

static unsigned char *map(void *at, size_t len, int flags)
{
    return mmap(at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

static const char *said(unsigned char *made) { return made == MAP_FAILED ? strerrorname_np(errno) : "ok"; }

/* A limit of locked memory, for a user without rights. */
static void locked(void)
{
    struct rlimit limit = {MIB, MIB};
    CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    CHECK(geteuid() != 0 || setresuid(65534, 65534, 65534) == 0);
    unsigned char *memory = map(NULL, 4 * MIB, 0), present;
    memset(memory, 5, 4 * MIB);
    printf("too much: %s\n", said(map(memory, 4 * MIB, MAP_FIXED | MAP_LOCKED)));
    int is_there = mincore(memory, PAGE, &present) == 0;
    printf("there: %d, %d\n", is_there, is_there ? memory[0] : -1);
    printf("enough: %s\n", said(map(NULL, MIB / 2, MAP_LOCKED)));
    limit.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    printf("no right: %s\n", said(map(NULL, PAGE, MAP_LOCKED)));
}

/* Lists of which a later part is bad. */
static void advised(void)
{
    unsigned char *memory = map(NULL, 4 * PAGE, 0), *list = map(NULL, 2 * PAGE, 0);
    memset(memory, 9, 4 * PAGE);
    munmap(list + PAGE, PAGE);
    struct iovec *cut = (struct iovec *)(list + PAGE) - 1, *first = (struct iovec *)list;
    *cut = (struct iovec){memory, PAGE};
    first[0] = (struct iovec){memory + PAGE, PAGE};
    first[1] = (struct iovec){memory + 2 * PAGE, -1ul};
    int self = syscall(SYS_pidfd_open, getpid(), 0);
    struct iovec *lists[] = {cut, first};
    for (int i = 0; i < 2; i++) {
        long done = syscall(SYS_process_madvise, self, lists[i], 2, MADV_DONTNEED, 0);
        printf("%s: %d\n", done < 0 ? strerrorname_np(errno) : "ok", memory[i * PAGE]);
    }
}

/* Good ranges before a bad one. */
static void populated(void)
{
    unsigned char *memory = map(NULL, 4 * PAGE, 0);
    munmap(memory + 3 * PAGE, PAGE);
    struct iovec ranges[] = {{memory, PAGE}, {memory + PAGE, PAGE}, {memory + 3 * PAGE, PAGE}};
    int self = syscall(SYS_pidfd_open, getpid(), 0);
    for (int advice = MADV_POPULATE_READ; advice <= MADV_POPULATE_WRITE; advice++)
        for (int count = 2; count <= 3; count++) {
            long done = syscall(SYS_process_madvise, self, ranges, count, advice, 0);
            printf("populated %ld: %s\n", done, done < 0 ? strerrorname_np(errno) : "ok");
        }
    close(self);
}

static const char *answer(long result) { return result < 0 ? strerrorname_np(errno) : "ok"; }

/* Bad arguments and a range over all memory, of which the beginning is not mapped. */
static void everywhere(void)
{
    unsigned long all = 1ul << 46, beyond = 0xfacefeeddeadf000;
    printf("bits %s", answer(syscall(SYS_mprotect, 0, all, 0x10000000)));
    printf(" %s, advice %s", answer(syscall(SYS_mprotect, 0, all, PROT_READ)),
           answer(syscall(SYS_madvise, 0, all, 9999)));
    printf(" %s, key", answer(syscall(SYS_madvise, 0, all, MADV_NORMAL)));
    for (int key = -2; key < 2; key++)
        printf(" %s %s", answer(syscall(SYS_pkey_mprotect, 0, all, PROT_READ, key)),
               answer(syscall(SYS_pkey_mprotect, 0, beyond, PROT_READ, key)));
    puts("");
}

/* A stack that ends beyond all addresses. */
static void cloned(void)
{
    struct clone_args child = {
        .flags = CLONE_VM | CLONE_VFORK, .exit_signal = SIGCHLD, .stack = 16, .stack_size = -8ul};
    printf("stack: %s\n", syscall(SYS_clone3, &child, sizeof child) < 0 ? strerrorname_np(errno) : "ok");
    for (int call = 0; call < 2; call++)
        printf("limit: %s\n", syscall(call ? SYS_setrlimit : SYS_getrlimit, RLIMIT_STACK, 0) < 0
                                   ? strerrorname_np(errno) : "ok");
}

int main(void)
{
    cloned();
    advised();
    populated();
    everywhere();
    locked();
    return 0;
}
