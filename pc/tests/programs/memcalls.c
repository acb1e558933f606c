/* Calls about memory that few programs make: policies, barriers, seals, guards, affinity, vectors with offsets. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#ifndef SYS_mseal
#define SYS_mseal 462
#endif

enum { P = 4096, GUARD_INSTALL = 102, GUARD_REMOVE = 103 };

static const char *err(long result) { return result == -1 ? strerrorname_np(errno) : "ok"; }
static void say(const char *what, long n) { n < 0 ? printf("%s: %s\n", what, strerrorname_np(errno)) : printf("%s: %ld\n", what, n); }
static char *map(int pages, int flags) { return mmap(0, pages * P, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0); }

static sigjmp_buf back;
static int code;
static void on(int number, siginfo_t *info, void *context) { code = info->si_code; siglongjmp(back, 1); }
/* Whether a byte may be read: its value, or less than 0. */
static int look(volatile char *p) { return sigsetjmp(back, 1) ? -code : *p; }

static void guards(void) {
    char *p = map(8, MAP_PRIVATE);
    memset(p, 7, 8 * P);
    say("install", madvise(p + 2 * P, 2 * P, GUARD_INSTALL));
    printf("%d %d %d %d\n", look(p + P), look(p + 2 * P), look(p + 3 * P + 5), look(p + 4 * P));
    char data[3 * P];
    int fd = memfd_create("x", 0);
    say("written from", write(fd, p + P, 3 * P));
    say("read into", pread(fd, p + 2 * P, 10, 0));
    say("populate", madvise(p, 8 * P, MADV_POPULATE_WRITE));
    say("locked", mlock(p, 8 * P)), munlock(p, 8 * P);
    say("not needed", madvise(p, 8 * P, MADV_DONTNEED));
    printf("%d %d\n", look(p + P), look(p + 2 * P));
    say("free", madvise(p, 8 * P, MADV_FREE));
    printf("%d\n", look(p + 2 * P));
    say("to read", mprotect(p, 8 * P, PROT_READ));
    say("to write", mprotect(p, 8 * P, PROT_READ | PROT_WRITE));
    printf("%d\n", look(p + 2 * P));
    if (fork() == 0) { printf("child %d %d\n", look(p + P), look(p + 3 * P)), fflush(stdout); _exit(0); }
    wait(0);
    char *q = mremap(p, 8 * P, 8 * P, MREMAP_MAYMOVE | MREMAP_FIXED, map(8, MAP_PRIVATE));
    printf("moved %d %d\n", look(q + P), look(q + 2 * P)), p = q;
    unsigned char seen[8];
    p[0] = p[P] = 1;
    mincore(p, 8 * P, seen);
    printf("in core %d %d %d\n", seen[1] & 1, seen[2] & 1, seen[3] & 1);
    say("remove", madvise(p, 3 * P, GUARD_REMOVE));
    printf("%d %d %d\n", look(p + P), look(p + 2 * P), look(p + 3 * P));
    say("twice", madvise(p, 8 * P, GUARD_INSTALL));
    say("twice", madvise(p, 8 * P, GUARD_INSTALL));
    say("all removed", madvise(p, 8 * P, GUARD_REMOVE));
    printf("%d\n", look(p));
    mlock(p, P);
    say("locked", madvise(p, P, GUARD_INSTALL));
    char *s = map(4, MAP_SHARED);
    s[0] = 1;
    say("shared", madvise(s, P, GUARD_INSTALL));
    printf("%d\n", look(s));
    say("shared, removed", madvise(s, P, GUARD_REMOVE));
    printf("%d\n", look(s));
    munmap(p, 8 * P);
}

/* Whether a byte can be stored, as a system call sees it. */
static int write_to(char *at) {
    int ends[2];
    if (pipe(ends) || write(ends[1], "x", 1) != 1) return -2;
    int done = read(ends[0], at, 1), kept = errno;
    close(ends[0]), close(ends[1]);
    return errno = kept, done == 1 ? 0 : -1;
}

static void seals(void) {
    char *p = map(4, MAP_PRIVATE), *r = mmap(0, 4 * P, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    say("flags", syscall(SYS_mseal, p, P, 1));
    say("odd", syscall(SYS_mseal, p + 1, P, 0));
    say("nothing", syscall(SYS_mseal, p, 0, 0));
    munmap(p + 3 * P, P);
    say("a hole", syscall(SYS_mseal, p, 4 * P, 0));
    say("wrapping", syscall(SYS_mseal, p, -4096ul, 0));
    say("seal", syscall(SYS_mseal, p + P, P, 0));
    say("again", syscall(SYS_mseal, p + P, P, 0));
    say("munmap", munmap(p, 3 * P));
    say("munmap beside", munmap(p + 2 * P, P));
    say("mprotect", mprotect(p, 2 * P, PROT_READ));
    say("mremap", (long)mremap(p + P, P, 2 * P, MREMAP_MAYMOVE) == -1 ? -1 : 0);
    say("mapped over", (long)mmap(p, 2 * P, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == -1 ? -1 : 0);
    say("thrown away, to write", madvise(p + P, P, MADV_DONTNEED));
    say("seal", syscall(SYS_mseal, r, P, 0));
    say("thrown away, to read", madvise(r, P, MADV_DONTNEED));
    say("advised", madvise(r, P, MADV_RANDOM));
    say("locked", mlock(p + P, P));
    p[P] = 1;
    char *q = map(8, MAP_PRIVATE), *s = map(4, MAP_SHARED);
    say("seal the third", syscall(SYS_mseal, q + 2 * P, P, 0));
    say("mprotect from the first", mprotect(q, 4 * P, PROT_READ));
    say("mprotect to the same", mprotect(q + 2 * P, P, PROT_READ | PROT_WRITE));
    say("to the first", write_to(q));
    say("to the fourth", write_to(q + 3 * P));
    say("shrink over it", (long)mremap(q, 4 * P, P, 0) == -1 ? -1 : 0);
    say("move onto it", (long)mremap(q + 6 * P, P, P, MREMAP_MAYMOVE | MREMAP_FIXED, q + 2 * P) == -1 ? -1 : 0);
    say("move all", (long)mremap(q, 4 * P, 4 * P, MREMAP_MAYMOVE | MREMAP_FIXED, s + 64 * P) == -1 ? -1 : 0);
    say("move nothing", (long)mremap((void *)(8 * P), P, P, MREMAP_MAYMOVE | MREMAP_FIXED, q) == -1 ? -1 : 0);
    say("seal shared", syscall(SYS_mseal, s, P, 0));
    say("rearrange", remap_file_pages(s, 2 * P, 0, 1, 0));
    say("rearrange beside", remap_file_pages(s + P, P, 0, 0, 0));
    say("not for a child", madvise(r, P, MADV_DONTFORK));
    say("empty for a child", madvise(r, P, MADV_WIPEONFORK));
    say("all but the first", madvise(r + P, 3 * P, MADV_DONTNEED));
    say("guards", madvise(r, P, GUARD_INSTALL));
    char *top = sbrk(4 * P);
    say("seal the heap", syscall(SYS_mseal, (char *)((long)(top + 2 * P) & -P), P, 0));
    say("shrink the heap", brk(top)), printf("%d\n", sbrk(0) == top + 4 * P);
    int number = shmget(IPC_PRIVATE, 2 * P, 0600);
    char *segment = shmat(number, 0, 0);
    shmctl(number, IPC_RMID, 0);
    say("seal a segment", syscall(SYS_mseal, segment, P, 0));
    say("detach", shmdt(segment));
    say("still there", write_to(segment));
    say("its second page", write_to(segment + P));
}

static void barriers(void) {
    int known = syscall(SYS_membarrier, 0, 0, 0);
    printf("known %d\n", (known & 0x7f) == 0x7f);
    say("query with flags", syscall(SYS_membarrier, 0, 5, 0));
    say("not registered", syscall(SYS_membarrier, 8, 0, 0));
    say("register", syscall(SYS_membarrier, 16, 0, 0));
    say("registered", syscall(SYS_membarrier, 8, 0, 0));
    say("cores, not registered", syscall(SYS_membarrier, 32, 0, 0));
    say("register", syscall(SYS_membarrier, 64, 0, 0));
    say("cores", syscall(SYS_membarrier, 32, 0, 0));
    say("global", syscall(SYS_membarrier, 1, 0, 0));
    say("global, quick", syscall(SYS_membarrier, 2, 0, 0));
    say("register", syscall(SYS_membarrier, 4, 0, 0));
    say("unknown", syscall(SYS_membarrier, 3, 0, 0));
    say("unknown", syscall(SYS_membarrier, 1 << 20, 0, 0));
}

static void policies(void) {
    int mode = 77;
    unsigned long nodes = ~0ul, first = 1, second = 2;
    say("get", syscall(SYS_get_mempolicy, &mode, &nodes, 64, 0, 0)), printf("%d %lx\n", mode, nodes);
    say("bind", syscall(SYS_set_mempolicy, 2, &first, 64));
    say("get", syscall(SYS_get_mempolicy, &mode, &nodes, 64, 0, 0)), printf("%d %lx\n", mode, nodes);
    say("bind to none", syscall(SYS_set_mempolicy, 2, 0, 0));
    say("preferred", syscall(SYS_set_mempolicy, 1, &first, 64));
    say("preferred, none", syscall(SYS_set_mempolicy, 1, 0, 0));
    say("get", syscall(SYS_get_mempolicy, &mode, &nodes, 64, 0, 0)), printf("%d %lx\n", mode, nodes);
    say("interleaved", syscall(SYS_set_mempolicy, 3, &first, 64));
    say("next", syscall(SYS_get_mempolicy, &mode, 0, 0, 0, 1)), printf("%d\n", mode);
    say("local with a node", syscall(SYS_set_mempolicy, 4, &first, 64));
    say("local", syscall(SYS_set_mempolicy, 4, 0, 0));
    say("next", syscall(SYS_get_mempolicy, &mode, 0, 0, 0, 1));
    say("default with a node", syscall(SYS_set_mempolicy, 0, &first, 64));
    say("default", syscall(SYS_set_mempolicy, 0, 0, 0));
    say("no such mode", syscall(SYS_set_mempolicy, 99, &first, 64));
    say("at a bad address", syscall(SYS_set_mempolicy, 2, 8, 64));
    say("too many", syscall(SYS_set_mempolicy, 2, &first, 1ul << 30));
    say("allowed", syscall(SYS_get_mempolicy, 0, &nodes, 64, 0, 4)), printf("%d\n", (int)(nodes & 1));
    say("odd flags", syscall(SYS_get_mempolicy, &mode, 0, 0, 0, 64));
    say("address without flag", syscall(SYS_get_mempolicy, &mode, 0, 0, &mode, 0));
    char *p = map(4, MAP_PRIVATE);
    say("node of an address", syscall(SYS_get_mempolicy, &mode, 0, 0, p, 3)), printf("%d\n", mode);
    say("mbind", syscall(SYS_mbind, p, 4 * P, 2, &first, 64, 0));
    say("mbind, odd address", syscall(SYS_mbind, p + 1, P, 2, &first, 64, 0));
    say("mbind, odd flags", syscall(SYS_mbind, p, P, 2, &first, 64, 64));
    say("mbind, no node", syscall(SYS_mbind, p, P, 2, 0, 0, 0));
    munmap(p + P, P);
    say("mbind over a hole", syscall(SYS_mbind, p, 4 * P, 2, &first, 64, 0));
    say("node of no address", syscall(SYS_get_mempolicy, &mode, 0, 0, p + P, 3));
    p[0] = 1;
    void *pages[3] = { p, p + P, p + 2 * P };
    int status[3] = { 9, 9, 9 };
    say("where", syscall(SYS_move_pages, 0, 3, pages, 0, status, 0)), printf("%d %d %d\n", status[0], status[1], status[2]);
}

static void affinity(void) {
    unsigned long all[16] = { 0 }, one[16] = { 1 }, none[16] = { 0 };
    long size = syscall(SYS_sched_getaffinity, 0, sizeof all, all);
    printf("some %d\n", size > 0 && all[0] & 1);
    say("first", syscall(SYS_sched_setaffinity, 0, sizeof one, one));
    memset(all, 0, sizeof all);
    syscall(SYS_sched_getaffinity, 0, sizeof all, all), printf("%lx on %d\n", all[0], sched_getcpu());
    if (fork() == 0) { memset(all, 0, sizeof all), syscall(SYS_sched_getaffinity, 0, sizeof all, all), printf("child %lx\n", all[0]), fflush(stdout); _exit(0); }
    wait(0);
    say("none", syscall(SYS_sched_setaffinity, 0, sizeof none, none));
    say("nobody", syscall(SYS_sched_setaffinity, 0x7ffffff0, sizeof one, one));
    say("bad address", syscall(SYS_sched_setaffinity, 0, sizeof one, 8));
    say("odd size", syscall(SYS_sched_getaffinity, 0, 9, all));
    say("no size", syscall(SYS_sched_getaffinity, 0, 0, all));
    say("of nobody", syscall(SYS_sched_getaffinity, 0x7ffffff0, sizeof all, all));
}

static void vectors(void) {
    int fd = memfd_create("x", 0), ends[2];
    pipe(ends);
    char a[10], b[20];
    struct iovec two[2] = { { a, 10 }, { b, 20 } };
    memset(a, 'a', 10), memset(b, 'b', 20);
    say("pwritev", pwritev(fd, two, 2, 5)), say("at", lseek(fd, 0, SEEK_CUR));
    say("preadv", preadv(fd, two, 2, 10)), printf("%.10s %.10s\n", a, b);
    say("preadv, negative", preadv(fd, two, 2, -1));
    say("preadv of a pipe", preadv(ends[0], two, 2, 0));
    say("pwritev to a pipe", pwritev(ends[1], two, 2, 0));
    say("pwritev2, own offset", pwritev2(fd, two, 2, -1, 0)), say("at", lseek(fd, 0, SEEK_CUR));
    say("preadv2, own offset", preadv2(fd, two, 2, -1, 0)), say("at", lseek(fd, 0, SEEK_CUR));
    say("pwritev2, negative", pwritev2(fd, two, 2, -2, 0));
    say("pwritev2, at the end", pwritev2(fd, two, 1, 0, RWF_APPEND)), say("long", lseek(fd, 0, SEEK_END));
    say("pwritev2, unknown", pwritev2(fd, two, 2, 0, 1 << 20));
    say("pwritev2, synchronised", pwritev2(fd, two, 2, 0, RWF_SYNC | RWF_DSYNC | RWF_HIPRI));
    say("preadv2 of a pipe, own", (write(ends[1], "xyz", 3), preadv2(ends[0], two, 2, -1, 0)));
    say("of nothing", preadv(99, two, 2, 0));
    say("no buffers", preadv(fd, two, 0, 0));
}

static void file_seals(void) {
    int plain = memfd_create("plain", 0), fd = memfd_create("sealed", MFD_ALLOW_SEALING), ends[2];
    pipe(ends);
    say("of a plain one", fcntl(plain, F_GET_SEALS));
    say("to a plain one", fcntl(plain, F_ADD_SEALS, F_SEAL_GROW));
    say("of a pipe", fcntl(ends[0], F_GET_SEALS));
    say("at first", fcntl(fd, F_GET_SEALS));
    say("unknown", fcntl(fd, F_ADD_SEALS, 0x1000));
    write(fd, "0123456789", 10);
    char *p = mmap(0, P, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    say("grow", fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
    say("written past the end", pwrite(fd, "x", 1, 10));
    say("longer", ftruncate(fd, 11));
    say("allocated", fallocate(fd, 0, 0, 20));
    say("shorter", ftruncate(fd, 9));
    say("shrink", fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
    say("shorter", ftruncate(fd, 8));
    say("write, while mapped", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    say("in future", fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
    p[1] = 'y';
    say("written", pwrite(fd, "x", 1, 0));
    say("mapped to write", (long)mmap(0, P, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == -1 ? -1 : 0);
    char *q = mmap(0, P, PROT_READ, MAP_SHARED, fd, 0);
    say("mapped to read", (long)q == -1 ? -1 : q[1]);
    say("made to write", mprotect(q, P, PROT_READ | PROT_WRITE));
    say("mapped privately", (long)mmap(0, P, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0) == -1 ? -1 : 0);
    munmap(p, P), munmap(q, P);
    say("write", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    say("written", pwrite(fd, "x", 1, 0));
    say("no more", fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
    say("one more", fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
    say("in the end", fcntl(fd, F_GET_SEALS));
    say("not executed", fcntl(memfd_create("x", 8), F_GET_SEALS));
}

static pthread_barrier_t meeting;
static int shared_fd;
static void *map_and_store(void *unused) {
    pthread_barrier_wait(&meeting);
    char *p = mmap(0, P, PROT_READ | PROT_WRITE, MAP_SHARED, shared_fd, 0);
    return p == MAP_FAILED ? 0 : p;
}
static void *write_some(void *unused) {
    pthread_barrier_wait(&meeting);
    for (int i = 0; i < 100; i++) if (pwrite(shared_fd, &i, sizeof i, 0) < 0) break;
    return 0;
}

/* A file that is sealed against stores has no mapping to store to, and keeps its content. */
static void file_seal_race(void) {
    int both = 0, changed = 0;
    for (int round = 0; round < 60; round++) {
        pthread_t mapper, writer;
        shared_fd = memfd_create("sealed", MFD_ALLOW_SEALING);
        ftruncate(shared_fd, P);
        int is_odd = round & 1, before = 0, after = 0;
        pthread_barrier_init(&meeting, 0, 2);
        pthread_create(&mapper, 0, is_odd ? write_some : map_and_store, 0);
        pthread_barrier_wait(&meeting);
        for (volatile int wait = 0; wait < round * 50; wait++);
        int sealed = fcntl(shared_fd, F_ADD_SEALS, F_SEAL_WRITE) == 0;
        pread(shared_fd, &before, sizeof before, 0);
        void *p;
        pthread_join(mapper, &p);
        pread(shared_fd, &after, sizeof after, 0);
        both += sealed && p, changed += sealed && before != after;
        if (p) munmap(p, P);
        close(shared_fd);
    }
    printf("mapped and sealed: %d, changed: %d\n", both, changed);
}

int main(int count, char **names) {
    struct sigaction action = { .sa_sigaction = on, .sa_flags = SA_SIGINFO };
    sigaction(SIGSEGV, &action, 0);
    setvbuf(stdout, 0, _IOLBF, 0);
    const char *name = count > 1 ? names[1] : "";
    if (!strcmp(name, "guards")) guards();
    if (!strcmp(name, "seals")) seals();
    if (!strcmp(name, "barriers")) barriers();
    if (!strcmp(name, "policies")) policies();
    if (!strcmp(name, "affinity")) affinity();
    if (!strcmp(name, "vectors")) vectors();
    if (!strcmp(name, "file_seals")) file_seals();
    if (!strcmp(name, "file_seal_race")) file_seal_race();
}
