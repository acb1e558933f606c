/* Limits are the program's, and concern nothing of the runtime's: file sizes and descriptors. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *err(long r) { return r < 0 ? strerrorname_np(errno) : "ok"; }
static const size_t LEN = 64 << 20;
static unsigned char *data;
static void fill(int seed) { unsigned x = seed; for (size_t i = 0; i < LEN; i += 4) { x = x * 1664525 + 1013904223; *(unsigned *)(data + i) = x; } }
static size_t bad(int seed) { size_t n = 0; unsigned x = seed; for (size_t i = 0; i < LEN; i += 4) { x = x * 1664525 + 1013904223; n += *(unsigned *)(data + i) != x; } return n; }
static void limit(const char *name, int what) { struct rlimit l; getrlimit(what, &l); printf("%s: %lld %lld\n", name, (long long)l.rlim_cur, (long long)l.rlim_max); }
static volatile int got;
static void on(int s) { got = s; }
static void own_file(void) {
    static char b[16384]; int f = memfd_create("own", 0); char name[] = "/tmp/ownXXXXXX"; close(f); f = mkstemp(name); unlink(name);
    long a = write(f, b, sizeof b); printf("first %ld", a); a = write(f, b, sizeof b); printf(", then %s, signal %d\n", err(a), got); got = 0; a = ftruncate(f, 1 << 20); printf("longer %s, signal %d\n", err(a), got); got = 0; close(f);
}
int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 4096);
    if (argc > 1) { limit("executed", RLIMIT_FSIZE); signal(SIGXFSZ, on); data = mmap(NULL, LEN, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); fill(7); printf("bad %zu\n", bad(7)); own_file(); return 0; }
    data = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct rlimit l = { 8192, 65536 }; printf("set %s\n", err(setrlimit(RLIMIT_FSIZE, &l))); fill(1); printf("bad %zu\n", bad(1));
    signal(SIGXFSZ, on); own_file(); limit("now", RLIMIT_FSIZE);
    l.rlim_cur = 65536; printf("raised %s\n", err(setrlimit(RLIMIT_FSIZE, &l))); l.rlim_cur = 65537; printf("above %s\n", err(setrlimit(RLIMIT_FSIZE, &l))); l.rlim_cur = 8192; l.rlim_max = 8192; setrlimit(RLIMIT_FSIZE, &l);
    fflush(stdout); pid_t p = fork(); if (!p) { fill(2); printf("child: bad %zu\n", bad(2)); own_file(); if (geteuid() == 0) setresuid(65534, 65534, 65534); l.rlim_max = 1 << 20; printf("without right %s\n", err(setrlimit(RLIMIT_FSIZE, &l))); fflush(stdout); execl("/proc/self/exe", argv[0], "x", NULL); _exit(1); } int st; waitpid(p, &st, 0); printf("child %x, bad %zu\n", st, bad(1));
    /* Descriptors. */
    l.rlim_cur = 40; l.rlim_max = 60; printf("files %s\n", err(setrlimit(RLIMIT_NOFILE, &l))); limit("files", RLIMIT_NOFILE);
    int last = -1, n = 0, d; while ((d = open("/dev/null", O_RDONLY)) >= 0) { last = d; n++; } printf("opened to %d, then %s\n", last, strerrorname_np(errno));
    printf("dup2 39 %s, 40 %s, 59 %s\n", err(dup2(0, 39)), err(dup2(0, 40)), err(dup2(0, 59))); for (int i = 3; i < 40; i++) close(i);
    l.rlim_cur = 60; printf("raised %s\n", err(setrlimit(RLIMIT_NOFILE, &l))); printf("dup2 59 %s\n", err(dup2(0, 59))); printf("close_range %s\n", err(syscall(SYS_close_range, 3, ~0u, 0)));
    fill(3); printf("bad %zu\n", bad(3)); fflush(stdout); p = fork(); if (!p) { fill(4); _exit(bad(4) != 0); } waitpid(p, &st, 0); printf("child %x, bad %zu\n", st, bad(3));
    l.rlim_cur = l.rlim_max = 3; setrlimit(RLIMIT_NOFILE, &l); p = fork(); if (!p) { fill(5); _exit(bad(5) != 0); } waitpid(p, &st, 0); printf("three: child %x, bad %zu\n", st, bad(3));
    return 0;
}
