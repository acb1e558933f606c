/* Processes that share a memory (vfork and its kind), and whose memory it was ends first. Nothing printed depends on
 * time. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEN (16ul << 20)
#define STACK (256ul << 10)
static unsigned char *data;
static int in[2], out[2];
static void *map(size_t n) { void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); if (p == MAP_FAILED) abort(); return p; }
static unsigned value(size_t i, int s) { return (unsigned)(i * 2654435761u + s * 97) & 0xffff; }
static void fill(unsigned char *p, int s) { for (size_t i = 0; i < LEN; i += 64) *(unsigned *)(p + i) = value(i, s); }
static size_t bad(unsigned char *p, int s) { size_t n = 0; for (size_t i = 0; i < LEN; i += 64) n += *(unsigned *)(p + i) != value(i, s); return n; }
static void *top(void) { return (char *)map(STACK) + STACK; }
static void tell(int fd) { char c = 'x'; write(fd, &c, 1); }
static void await(int fd) { char c; read(fd, &c, 1); }
static void status(const char *n, pid_t p) { int st = -1; printf("%s: %d", n, waitpid(p, &st, __WALL) == p); printf(" %x\n", st); fflush(stdout); }

/* The memory is used until the last has left it: the others fill theirs meanwhile. */
static int goes_on(void *kills) {
    pid_t parent = getppid();
    if (kills) { kill(parent, SIGKILL); while (getppid() == parent) usleep(1000); }
    tell(out[1]); await(in[0]);
    char text[64]; size_t n = bad(data, 1); write(1, text, snprintf(text, 64, "bad %zu\n", n));
    tell(out[1]); _exit(0);
}
static void others(void) {
    unsigned char *own = map(LEN);
    await(out[0]); for (int s = 2; s < 5; s++) fill(own, s);
    tell(in[1]); await(out[0]); printf("others %zu\n", bad(own, 4)); fflush(stdout);
}
static void killed(void) {
    pid_t p = fork();
    if (!p) { data = map(LEN); fill(data, 1); clone(goes_on, top(), CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)1); _exit(3); }
    status("parent", p); others();
}
static void killed_with_grandchild(void) {
    pid_t p = fork();
    if (!p) {
        data = map(LEN); fill(data, 1);
        if (!vfork()) { clone(goes_on, top(), CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)1); _exit(0); }
        _exit(3);
    }
    status("parent", p); others();
}
static void executes(char **argv) {
    pid_t p = fork();
    if (!p) {
        char *words[] = { argv[0], "program", NULL };
        data = map(LEN); fill(data, 1); dup2(in[1], 50); dup2(out[0], 51);
        clone(goes_on, top(), CLONE_VM | SIGCHLD, NULL); execv("/proc/self/exe", words); _exit(3);
    }
    status("executed", p);
}

/* The word that the kernel clears at the end, whatever ends it. */
static volatile int word, other;
static char **words;
static int ends(void *how) {
    switch ((intptr_t)how) {
    case 0: return 0;
    case -1: _exit(0);
    case -2: execv("/proc/self/exe", words); _exit(1);
    case -3: syscall(SYS_set_tid_address, &other); word = 0; kill(getpid(), SIGKILL); return 0;
    default: kill(getpid(), (intptr_t)how); return 0;
    }
}
static void cleared(char **argv) {
    static const int hows[] = { 0, -1, -2, -3, SIGKILL, SIGTERM, SIGSEGV, SIGBUS };
    char *program[] = { argv[0], "nothing", NULL }; words = program;
    unsigned char *own = map(LEN); volatile int *w = map(4096); void *stack = top();
    for (unsigned i = 0; i < sizeof hows / sizeof *hows; i++) for (int vfork = 0; vfork < 2; vfork++) {
        other = hows[i] == -3; *w = word = 1; fill(own, i);
        pid_t p = clone(ends, stack, CLONE_VM | (vfork ? CLONE_VFORK : 0) | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID, (void *)(intptr_t)hows[i], w, NULL, hows[i] == -3 ? &word : w);
        volatile int *waits = hows[i] == -3 ? &other : w;
        for (int seen; (seen = *waits);) syscall(SYS_futex, waits, FUTEX_WAIT, seen, NULL, NULL, 0);
        printf("%d, %d: ", hows[i], vfork); status("cleared", p);
    }
}

/* More than a tree can have at once. */
static volatile int counted;
static int counts(void *how) { counted++; if ((intptr_t)how == 1) _exit(0); if ((intptr_t)how == 2) kill(getpid(), SIGKILL); return 0; }
static void many(void) {
    void *stack = top(); int ended = 0, failed = 0;
    for (int i = 0; i < 4800; i++) {
        int st; pid_t p = clone(counts, stack, CLONE_VM | ((i & 7) == 7 ? CLONE_SIGHAND : 0) | SIGCHLD, (void *)(intptr_t)(i % 3));
        if (p < 0) { failed++; continue; }
        ended += waitpid(p, &st, 0) == p;
    }
    printf("counted %d, ended %d, failed %d\n", counted, ended, failed);
}

/* One that shares the handlers too executes a program. */
static int program(void *arg) { execv("/proc/self/exe", words); return 1; }
static void handlers(char **argv) {
    char *w[] = { argv[0], "nothing", NULL }; words = w;
    status("handlers", clone(program, top(), CLONE_VM | CLONE_SIGHAND | SIGCHLD, NULL));
    status("and waited for", clone(program, top(), CLONE_VM | CLONE_SIGHAND | CLONE_VFORK | SIGCHLD, NULL));
}

/* Children that are waited for end as threads do, while threads come and go. */
static volatile int done;
static int quick(void *arg) { return 0; }
static void *comes(void *arg) { volatile char x[4096]; memset((char *)x, (intptr_t)arg, sizeof x); return (void *)(intptr_t)x[9]; }
static void *makes(void *arg) { void *stack = top(); for (int i = 0; i < 1500; i++) { pid_t p = clone(quick, stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL); done += waitpid(p, NULL, 0) == p; } return NULL; }
static void among_threads(void) {
    pthread_t maker; pthread_create(&maker, NULL, makes, NULL); int right = 0;
    for (int i = 0; i < 1500; i++) { pthread_t t; void *r; pthread_create(&t, NULL, comes, (void *)(intptr_t)(i & 63)); pthread_join(t, &r); right += (intptr_t)r == (i & 63); }
    pthread_join(maker, NULL); printf("done %d, right %d\n", done, right);
    void *stack = top(); int ended = 0;
    for (int i = 0; i < 300; i++) { counted = 0; pid_t p = clone(counts, stack, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_VFORK, NULL); ended += p > 0 && counted == 1; }
    printf("waited for threads: %d\n", ended);
}

int main(int argc, char **argv) {
    const char *what = argv[1];
    if (!strcmp(what, "nothing")) return 0;
    if (!strcmp(what, "program")) { in[1] = 50; out[0] = 51; others(); return 0; }
    pipe(in); pipe(out);
    if (!strcmp(what, "killed")) { killed(); killed_with_grandchild(); }
    if (!strcmp(what, "executes")) executes(argv);
    if (!strcmp(what, "cleared")) cleared(argv);
    if (!strcmp(what, "many")) many();
    if (!strcmp(what, "handlers")) handlers(argv);
    if (!strcmp(what, "threads")) among_threads();
    return 0;
}
