/* Guard pages (MADV_GUARD_INSTALL) and sealed mappings (mseal) in the middle of a range: in a process that fits its limit, and
 * in an active one. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PG 4096ul
#define INSTALL 102
#define REMOVE 103
static int in[2];
static sigjmp_buf back;
static char *six(void) { char *p = mmap(NULL, 6 * PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); for (int i = 0; i < 6; i++) p[i * PG] = 'a' + i; return p; }
static void said(const char *n, long r) { printf("%s: %ld %s\n", n, r, r < 0 ? strerrorname_np(errno) : "-"); fflush(stdout); }
static void on_fault(int s) { siglongjmp(back, s); }
/* Of each page: what a call reads there and whether one may write, then whether the program may. */
static void show(const char *n, char *p) {
    signal(SIGSEGV, on_fault); printf("%s:", n);
    for (int i = 0; i < 6; i++) {
        char b; int c = -1, w, s, q[2]; pipe(q);
        if (write(q[1], p + i * PG, 1) == 1) { read(q[0], &b, 1); c = b; }
        write(q[1], "z", 1); w = read(q[0], p + i * PG + 1, 1); close(q[0]); close(q[1]);
        if (!(s = sigsetjmp(back, 1))) ((volatile char *)p)[i * PG + 2]++;
        printf(" %d/%d/%d", c, w, s);
    }
    printf("\n"); fflush(stdout);
}
static void out(char *p) { for (int i = 0; i < 6; i++) madvise(p + i * PG, PG, MADV_PAGEOUT); }
static char *guarded(int evicted) { char *p = six(); if (evicted) out(p); said("install", madvise(p + 2 * PG, 2 * PG, INSTALL)); return p; }

static void guards(int full, int evicted) {
    char *p = guarded(evicted); show("guarded", p);
    said("remove one", madvise(p + 2 * PG, PG, REMOVE)); show("one left", p); said("remove all", madvise(p, 6 * PG, REMOVE)); show("none left", p);
    p = guarded(evicted); said("read only", mprotect(p, 6 * PG, PROT_READ)); show("read only", p); said("remove", madvise(p, 6 * PG, REMOVE)); show("read only", p);
    p = guarded(evicted); said("none", mprotect(p, 6 * PG, PROT_NONE)); said("both", mprotect(p, 6 * PG, PROT_READ | PROT_WRITE)); show("both", p);
    p = guarded(evicted); said("unmap", munmap(p + 2 * PG, PG)); mmap(p + 2 * PG, PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0); show("mapped again", p);
    for (int a = 0; a < 5; a++) { static const int advices[] = { MADV_DONTNEED, MADV_COLD, MADV_PAGEOUT, MADV_WILLNEED, 24 }; p = guarded(evicted); said("advice", madvise(p, 6 * PG, advices[a])); show("advised", p); }
    p = guarded(evicted); said("populate", madvise(p, 6 * PG, MADV_POPULATE_WRITE)); said("populate", madvise(p, 6 * PG, MADV_POPULATE_READ)); show("populated", p);
    p = guarded(evicted); char *q = mremap(p, 6 * PG, 8 * PG, MREMAP_MAYMOVE); said("grown", q == MAP_FAILED ? -1 : 0); show("grown", q);
    p = guarded(evicted); char *to = mmap(NULL, 6 * PG, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); q = mremap(p, 6 * PG, 6 * PG, MREMAP_MAYMOVE | MREMAP_FIXED, to); said("moved", q == MAP_FAILED ? -1 : 0); show("moved", to); said("remove", madvise(to, 6 * PG, REMOVE)); show("moved", to);
    p = guarded(evicted); q = mremap(p, 6 * PG, 6 * PG, MREMAP_MAYMOVE | 4); said("left", q == MAP_FAILED ? -1 : 0); show("left", q); show("what it left", p);
    for (int wipe = 0; wipe < 2; wipe++) {
        p = guarded(evicted); if (wipe) said("wipe", madvise(p, 6 * PG, MADV_WIPEONFORK)); pid_t c = fork(); if (!c) { show("child", p); madvise(p, 6 * PG, REMOVE); show("child", p); _exit(0); }
        waitpid(c, NULL, 0); show("parent", p);
    }
    p = guarded(evicted); mmap(p + 3 * PG, PG, PROT_READ, MAP_SHARED | MAP_FIXED, open("/proc/self/exe", 0), 0); said("over a file", madvise(p, 6 * PG, INSTALL)); said("remove", madvise(p, 6 * PG, REMOVE)); show("file", p);
    p = guarded(evicted); struct iovec v = { p + PG, 2 * PG }; said("by vector", syscall(SYS_process_madvise, -10000 /* PIDFD_SELF_THREAD_GROUP */, &v, 1, REMOVE, 0)); int self = syscall(SYS_pidfd_open, getpid(), 0); said("by vector", syscall(SYS_process_madvise, self, &v, 1, REMOVE, 0)); show("by vector", p); said("wipe", syscall(SYS_process_madvise, self, &v, 1, MADV_WIPEONFORK, 0)); close(self); pid_t k = fork(); if (!k) { show("wiped", p); _exit(0); } waitpid(k, NULL, 0);
    /* Fresh memory is given by the run. */
    p = mmap(NULL, 256 * PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); madvise(p + 100 * PG, PG, INSTALL); for (int i = 0; i < 100; i++) p[i * PG] = 1; for (int i = 101; i < 256; i++) p[i * PG] = 1; show("among fresh", p + 97 * PG);
    /* Locked memory makes the process active. */
    if (full) { p = guarded(evicted); said("lock", mlock(p, 6 * PG)); said("install", madvise(p, PG, INSTALL)); said("unlock", munlock(p, 6 * PG)); show("locked", p); }
}

static void sealed(int evicted) {
    static const struct { const char *name; int advice; } advices[] = { { "dontneed", MADV_DONTNEED }, { "free", MADV_FREE }, { "dontneed locked", 24 }, { "install", INSTALL }, { "pageout", MADV_PAGEOUT }, { "cold", MADV_COLD }, { "wipe", MADV_WIPEONFORK }, { "dontfork", MADV_DONTFORK }, { "populate", MADV_POPULATE_READ } };
    for (unsigned a = 0; a < sizeof advices / sizeof *advices; a++) for (int mapped = 0; mapped < 2; mapped++) {
        char *p = six(); if (!mapped) mprotect(p + 3 * PG, PG, PROT_READ); if (syscall(462, p + 3 * PG, PG, 0)) said("seal", -1); if (evicted) out(p);
        printf("%s, ", advices[a].name); said("advice", madvise(p, 6 * PG, advices[a].advice)); if (advices[a].advice != MADV_FREE) show("sealed", p);
    }
    char *p = six(); syscall(462, p + 3 * PG, PG, 0); if (evicted) out(p); said("mprotect", mprotect(p, 6 * PG, PROT_READ)); show("sealed", p);
    p = six(); syscall(462, p + 3 * PG, PG, 0); if (evicted) out(p); said("mprotect", mprotect(p, 6 * PG, PROT_NONE)); show("sealed", p);
    p = six(); syscall(462, p + 3 * PG, PG, 0); if (evicted) out(p); said("munmap", munmap(p, 6 * PG)); show("sealed", p);
    p = six(); syscall(462, p + 3 * PG, PG, 0); if (evicted) out(p); said("fixed", mmap(p, 6 * PG, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0); show("sealed", p);
    p = six(); syscall(462, p + 3 * PG, PG, 0); if (evicted) out(p); said("mremap", mremap(p, 6 * PG, 3 * PG, 0) == MAP_FAILED ? -1 : 0); show("sealed", p);
}

int main(void) {
    guards(0, 0); sealed(0);
    char *locked = six(); mlock(locked, PG);
    for (int evicted = 0; evicted < 2; evicted++) { guards(1, evicted); sealed(evicted); }
    return 0;
}
