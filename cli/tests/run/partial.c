/* Calls that the kernel obeys up to where it refuses: what comes before has happened. And faults that nobody can
 * survive. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PG 4096ul
/* Six pages with something in each, where locked memory has made the process active. */
static char *six(void) { char *p = mmap(NULL, 6 * PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); for (int i = 0; i < 6; i++) p[i * PG] = 'a' + i; return p; }
static void said(const char *n, long r) { printf("%s: %ld %s\n", n, r, r < 0 ? strerrorname_np(errno) : "-"); fflush(stdout); }
/* What a page has, and whether it may be stored to, as a child finds out. */
static void show(char *p) {
    for (int i = 0; i < 6; i++) {
        fflush(stdout);
        int c = -1, w = -1, q[2]; pipe(q);
        if (syscall(SYS_write, q[1], p + i * PG, 1) == 1) { char b; read(q[0], &b, 1); c = b; }
        write(q[1], "z", 1); w = syscall(SYS_read, q[0], p + i * PG + 1, 1);
        close(q[0]); close(q[1]);
        printf(" %d/%d", c, w);
    }
    printf("\n");
}
static void out(char *p) { for (int i = 0; i < 6; i++) madvise(p + i * PG, PG, MADV_PAGEOUT); }
static const struct { const char *name; int advice; } advices[] = { { "dontneed", MADV_DONTNEED }, { "free", MADV_FREE }, { "pageout", MADV_PAGEOUT }, { "cold", MADV_COLD }, { "dontneed locked", 24 }, { "willneed", MADV_WILLNEED }, { "wipe", MADV_WIPEONFORK }, { "populate", 23 } };

int main(void) {
    char *locked = six(); mlock(locked, PG);
    for (int evicted = 0; evicted < 2; evicted++) for (unsigned a = 0; a < sizeof advices / sizeof *advices; a++) {
        printf("%s, evicted %d\n", advices[a].name, evicted);
        char *p = six(); mlock(p + 3 * PG, PG); if (evicted) out(p);
        said(" locked", madvise(p, 6 * PG, advices[a].advice)); if (a != 1) show(p);
        munlock(p + 3 * PG, PG);
        p = six(); munmap(p + 3 * PG, PG); if (evicted) out(p);
        said(" gap", madvise(p, 6 * PG, advices[a].advice)); if (a != 1) show(p);
        p = six(); mmap(p + 3 * PG, PG, PROT_READ, MAP_SHARED | MAP_FIXED, open("/proc/self/exe", 0), 0); if (evicted) out(p);
        said(" file", madvise(p, 6 * PG, advices[a].advice)); if (a != 1) show(p);
    }
    for (int evicted = 0; evicted < 2; evicted++) {
        char *p = six(); mmap(p + 3 * PG, PG, PROT_READ, MAP_SHARED | MAP_FIXED, open("/proc/self/exe", 0), 0); mprotect(p, 3 * PG, PROT_READ); mprotect(p + 4 * PG, 2 * PG, PROT_READ); if (evicted) out(p);
        said("mprotect, file", mprotect(p, 6 * PG, PROT_READ | PROT_WRITE)); show(p);
        p = six(); munmap(p + 3 * PG, PG); if (evicted) out(p);
        said("mprotect, gap", mprotect(p, 6 * PG, PROT_READ)); show(p);
        p = six(); munmap(p + 3 * PG, PG); if (evicted) out(p);
        said("mlock, gap", mlock(p, 6 * PG)); for (int i = 0; i < 6; i++) { said(" one", madvise(p + i * PG, PG, MADV_DONTNEED)); } show(p);
        p = six(); mlock(p, 6 * PG); munmap(p + 3 * PG, PG);
        said("munlock, gap", munlock(p, 6 * PG)); for (int i = 0; i < 6; i++) { said(" one", madvise(p + i * PG, PG, MADV_DONTNEED)); } show(p);
        munlock(p, 3 * PG); munlock(p + 4 * PG, 2 * PG);
        p = six(); if (evicted) out(p);
        said("mremap, half", (long)mremap(p + 2 * PG, 9 * PG, 10 * PG, MREMAP_MAYMOVE) < 0 ? -1 : 0); show(p);
    }
    /* The first process of a namespace dies of its faults. */
    for (int kind = 0; kind < 2; kind++) {
        pid_t p = fork();
        if (!p) {
            if (unshare(CLONE_NEWPID)) _exit(1);
            pid_t first = fork();
            if (!first) { char *at = mmap(NULL, 2 * PG, PROT_READ, MAP_SHARED, open("/proc/self/exe", 0), 1 << 30); if (!kind) at = (char *)16; raise(kind ? SIGBUS : SIGSEGV); _exit(*(volatile char *)at & 0); }
            int st; waitpid(first, &st, 0); _exit(WIFSIGNALED(st) ? WTERMSIG(st) : 99);
        }
        int st; waitpid(p, &st, 0); printf("first of its namespace: %x\n", st);
    }
    return 0;
}
