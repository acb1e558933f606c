/* Limits, rights, and what they are for: memory, open files, the length of files. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { P = 4096, M = 1 << 20 };

static const char *err(long result) { return result == -1 ? strerrorname_np(errno) : "ok"; }
static void say(const char *what, long result) { printf("%s: %s\n", what, err(result)); }

static int set(int what, rlim_t soft, rlim_t hard) { struct rlimit l = { soft, hard }; return setrlimit(what, &l); }
static void *map(size_t n, int protection, int flags) { return mmap(0, n, protection, flags | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

/* Each part in a process of its own: what it gives up is gone for it alone. */
static void part(const char *name, void (*f)(void)) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) { f(); fflush(stdout); _exit(0); }
    int status;
    waitpid(child, &status, 0);
    printf("%s: %x\n", name, status & 0x7f7f);
}

static void sides(void) {
    struct rlimit l;
    say("soft above hard", set(RLIMIT_DATA, 2 * M, M));
    say("soft above hard, of files", set(RLIMIT_NOFILE, 500, 400));
    say("no such limit", set(99, 1, 1));
    say("asking for no such limit", getrlimit(99, &l));
    say("at a bad address", syscall(SYS_prlimit64, 0, RLIMIT_DATA, (void *)8, 0));
    say("to a bad address", syscall(SYS_prlimit64, 0, RLIMIT_DATA, 0, (void *)8));
    say("of nobody", syscall(SYS_prlimit64, 0x7ffffff0, RLIMIT_DATA, 0, &l));
    say("more files than there may be", set(RLIMIT_NOFILE, 1ul << 40, 1ul << 40));
    set(RLIMIT_CORE, 5, 7);
    getrlimit(RLIMIT_CORE, &l);
    printf("%lu %lu\n", l.rlim_cur, l.rlim_max);
    pid_t child = fork();
    if (child == 0) {
        getrlimit(RLIMIT_CORE, &l);
        printf("inherited %lu %lu\n", l.rlim_cur, l.rlim_max), fflush(stdout);
        _exit(0);
    }
    wait(0);
    say("given up", setuid(65534));
    say("lowered", set(RLIMIT_CORE, 5, 6));
    say("raised", set(RLIMIT_CORE, 5, 7));
    say("within", set(RLIMIT_CORE, 6, 6));
}

static void data(void) {
    void *start = sbrk(0);
    say("limit", set(RLIMIT_DATA, 8 * M, 8 * M));
    say("4 MiB", (long)map(4 * M, 3, 0));
    say("16 MiB", (long)map(16 * M, 3, 0));
    void *r = map(16 * M, PROT_READ, 0);
    say("16 MiB to read", (long)r);
    say("made to write", mprotect(r, 16 * M, 3));
    say("a page of it made to write", mprotect(r, P, 3));
    say("16 MiB shared", (long)mmap(0, 16 * M, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    say("a stack of 16 MiB", (long)map(16 * M, 3, MAP_GROWSDOWN));
    void *small = map(M, 3, 0);
    say("1 MiB", (long)small);
    say("grown to 16 MiB", (long)mremap(small, M, 16 * M, MREMAP_MAYMOVE));
    say("break by 16 MiB", (long)sbrk(16 * M));
    say("break by 1 MiB", (long)sbrk(M));
    printf("%d\n", (char *)sbrk(0) == (char *)start + M);
}

static void address_space(void) {
    set(RLIMIT_AS, 256 * M, 256 * M);
    void *p = map(64 * M, 3, MAP_NORESERVE);
    say("64 MiB", (long)p);
    say("512 MiB", (long)map(512 * M, PROT_NONE, MAP_NORESERVE));
    say("grown to 512 MiB", (long)mremap(p, 64 * M, 512 * M, MREMAP_MAYMOVE));
    say("break by 512 MiB", (long)sbrk(512 * M));
}

static void locked(void) {
    char *p = map(64 * P, 3, 0);
    set(RLIMIT_MEMLOCK, 8 * P, 64 * P);
    say("locked with the right", mlock(p, 16 * P));
    munlock(p, 16 * P);
    setuid(65534);
    printf("%d %d\n", getuid(), geteuid());
    say("locked without", mlock(p, 16 * P));
    say("fewer", mlock(p, 8 * P));
    say("one more", mlock(p + 8 * P, P));
    say("mapped and locked", (long)map(P, 3, MAP_LOCKED));
    munlock(p, 8 * P);
    void *l = map(4 * P, 3, MAP_LOCKED);
    say("mapped and locked", (long)l);
    say("grown", (long)mremap(l, 4 * P, 16 * P, MREMAP_MAYMOVE));
    say("all", mlockall(MCL_CURRENT));
    say("all, now and in future", mlockall(MCL_CURRENT | MCL_FUTURE));
    say("mapped without a lock", (long)map(64 * P, 3, 0));
    munlockall();
    set(RLIMIT_MEMLOCK, 0, 64 * P);
    say("locked without a limit", mlock(p, P));
    say("mapped and locked", (long)map(P, 3, MAP_LOCKED));
    say("all in future", mlockall(MCL_FUTURE));
}

static void files(void) {
    set(RLIMIT_NOFILE, 10, 20);
    int last = -1, fd;
    while ((fd = open("/dev/null", O_RDONLY)) >= 0) last = fd;
    printf("last %d %s\n", last, strerrorname_np(errno));
    say("dup2 above", dup2(0, 10));
    say("dup2 far above", dup2(0, 5000));
    say("fcntl above", fcntl(0, F_DUPFD, 10));
    say("fcntl below", fcntl(0, F_DUPFD, 9));
    set(RLIMIT_NOFILE, 4, 20);
    say("one that is open still", fcntl(9, F_GETFD));
    close(3);
    say("open", open("/dev/null", O_RDONLY));
    say("open one more", open("/dev/null", O_RDONLY));
}

static volatile int came;
static void on(int s) { came = s; }

static void lengths(void) {
    int fd = memfd_create("x", 0);
    char data[3 * P];
    memset(data, 1, sizeof data);
    signal(SIGXFSZ, on);
    set(RLIMIT_FSIZE, 2 * P + 100, RLIM_INFINITY);
    printf("written %ld, came %d\n", (long)write(fd, data, sizeof data), came);
    printf("written %s", err(write(fd, data, sizeof data))), printf(", came %d\n", came), came = 0;
    printf("written %s", err(pwrite(fd, data, 1, 1 << 20))), printf(", came %d\n", came), came = 0;
    printf("written %ld, came %d\n", (long)pwrite(fd, data, 0, 1 << 20), came), came = 0;
    printf("written %ld, came %d\n", (long)pwrite(fd, data, P, 2 * P), came), came = 0;
    printf("longer %s", err(ftruncate(fd, 3 * P))), printf(", came %d\n", came), came = 0;
    printf("shorter %s", err(ftruncate(fd, P))), printf(", came %d\n", came), came = 0;
    signal(SIGXFSZ, SIG_DFL);
    ftruncate(fd, 3 * P);
    puts("not reached");
}

static void users(void) {
    uid_t r, e, s;
    say("setresuid", setresuid(1, 2, 3));
    getresuid(&r, &e, &s), printf("%d %d %d\n", r, e, s);
    say("to another", setuid(4));
    say("to the saved", setuid(3));
    getresuid(&r, &e, &s), printf("%d %d %d\n", r, e, s);
    say("exchanged", setreuid(3, 1));
    getresuid(&r, &e, &s), printf("%d %d %d\n", r, e, s);
    say("groups", setgid(5));
    say("own group", setgid(getgid()));
}

int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
    part("sides", sides);
    part("data", data);
    part("address space", address_space);
    part("locked", locked);
    part("files", files);
    part("lengths", lengths);
    part("users", users);
}
