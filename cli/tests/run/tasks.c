/* Threads and processes in every form, over managed memory. Nothing printed depends on time. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ull
#endif
#define PG 4096ul
static char *map(size_t n) { char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); if (p == MAP_FAILED) abort(); return p; }
static const size_t LEN = 12 << 20;
static unsigned char *data;
static void fill(int seed) { for (size_t i = 0; i < LEN; i += 1024) data[i] = (unsigned char)((i >> 10) * 13 + seed); }
static size_t bad(int seed) { size_t n = 0; for (size_t i = 0; i < LEN; i += 1024) n += data[i] != (unsigned char)((i >> 10) * 13 + seed); return n; }
static void status(const char *n, int st) { if (WIFSIGNALED(st)) printf("%s: signal %d\n", n, WTERMSIG(st)); else printf("%s: exit %d\n", n, WEXITSTATUS(st)); fflush(stdout); }
static void await(const char *n, pid_t p) { int st = -1; if (p < 0) { printf("%s: %s\n", n, strerrorname_np(errno)); return; } if (waitpid(p, &st, __WALL) != p) printf("%s: waitpid %s\n", n, strerrorname_np(errno)); else status(n, st); }

static volatile int shared, word, tid_word, handled;
static void on_signal(int signal) { handled++; }
static int body(void *arg) { shared += (intptr_t)arg; return 3 + (bad(1) != 0); }
static int quick(void *arg) { __atomic_fetch_add((int *)arg, 1, 5); return 0; }
static void *busy(void *arg) { unsigned s = (uintptr_t)arg; while (!shared) { s = s * 1103515245 + 12345; size_t i = (s % (LEN / 1024)) * 1024; if (data[i] != (unsigned char)((i >> 10) * 13 + 1)) return (void *)1; } return NULL; }
static void *thread(void *arg) { volatile char x[20000]; memset((void *)x, 1, sizeof x); return (void *)((intptr_t)arg + x[19999]); }
static void *in_call(void *arg) { char c; read((intptr_t)arg, &c, 1); return NULL; }
static char **words;
static void *keeps_its_word(void *arg) { int *w = NULL; prctl(PR_GET_TID_ADDRESS, &w); pid_t me = syscall(SYS_gettid); int is_tid = *w == me; syscall(SYS_set_tid_address, w); return (void *)(intptr_t)is_tid; }
static void *executes(void *arg) { execv("/proc/self/exe", words); return NULL; }
static pthread_mutex_t *robust;
static void *holds(void *arg) { pthread_mutex_lock(robust); return NULL; }
static void without_handlers(void) { struct sigaction one; kill(getpid(), SIGUSR2); sigaction(SIGUSR1, NULL, &one); if (one.sa_handler != SIG_DFL || bad(1)) _exit(9); kill(getpid(), SIGUSR1); _exit(8); }
static pid_t clone3_calls(struct clone_args *a, void (*function)(void)) { long r; asm volatile("syscall; test %%rax, %%rax; jnz 1f; call *%[function]; 1:" : "=a"(r) : "a"(SYS_clone3), "D"(a), "S"(sizeof *a), [function] "r"(function) : "rcx", "r11", "memory"); return r; }
static void failure(const char *n, long r) { printf("%s: %ld %s\n", n, r, strerrorname_np(errno)); }
static long clone3_(struct clone_args *a) { return syscall(SYS_clone3, a, sizeof *a); }

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "tids")) { printf("executed by a thread: %d\n", getpid() == (int)syscall(SYS_gettid)); return 9; }
    if (argc > 1 && !strcmp(argv[1], "count")) return atoi(argv[2]);
    setvbuf(stdout, NULL, _IOLBF, 4096);
    data = (unsigned char *)map(LEN); fill(1);
    char *stack = map(1 << 20), *top = stack + (1 << 20);

    /* Clone in its forms. */
    shared = 0; await("clone, memory", clone(body, top, CLONE_VM | SIGCHLD, (void *)5)); printf("shared %d\n", shared);
    await("clone, memory and files", clone(body, top, CLONE_VM | CLONE_FILES | CLONE_FS | SIGCHLD, (void *)5)); printf("shared %d\n", shared);
    await("clone, handlers", clone(body, top, CLONE_VM | CLONE_SIGHAND | SIGCHLD, (void *)5)); printf("shared %d\n", shared);
    await("clone, vfork", clone(body, top, CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)5)); printf("shared %d\n", shared);
    await("clone, copy on a stack", clone(body, top, SIGCHLD, (void *)5)); printf("shared %d\n", shared);
    await("clone, files", clone(body, top, CLONE_FILES | SIGCHLD, (void *)5)); printf("shared %d, open %d\n", shared, fcntl(1, F_GETFD) >= 0); 
    madvise(data, LEN, MADV_PAGEOUT); printf("bad %zu\n", bad(1));
    await("clone, no signal", clone(body, top, 0, (void *)5));
    /* Handlers that a child has not; what is ignored it ignores too. */
    signal(SIGUSR1, on_signal); signal(SIGUSR2, SIG_IGN);
    for (int vfork = 0; vfork < 2; vfork++) {
        struct clone_args a = { .flags = CLONE_CLEAR_SIGHAND | (vfork ? CLONE_VM | CLONE_VFORK : 0), .exit_signal = SIGCHLD };
        if (vfork) { a.stack = (uintptr_t)stack; a.stack_size = 1 << 20; }
        await("clone3, without handlers", clone3_calls(&a, without_handlers));
        raise(SIGUSR1); printf("handled %d\n", handled);
    }
    { struct clone_args a = { .flags = CLONE_CLEAR_SIGHAND | CLONE_SIGHAND | CLONE_VM }; failure("handlers shared and cleared", clone3_(&a)); }
    signal(SIGUSR1, SIG_DFL); signal(SIGUSR2, SIG_DFL);
    { struct clone_args a = { 0 }; a.exit_signal = SIGCHLD; pid_t p = clone3_(&a); if (!p) _exit(4 + (bad(1) != 0)); await("clone3, fork", p); }
    { struct clone_args a = { 0 }; int fd = -1; a.flags = CLONE_PIDFD | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID; a.pidfd = (uintptr_t)&fd; a.parent_tid = (uintptr_t)&word; a.child_tid = (uintptr_t)&tid_word; a.exit_signal = SIGCHLD; pid_t p = clone3_(&a); if (!p) _exit(tid_word == getpid() ? 6 : 7); printf("words %d, descriptor %d\n", word == p, fd >= 0); await("clone3, words", p); close(fd); }
    { struct clone_args a = { 0 }; a.flags = CLONE_THREAD; failure("thread without memory", clone3_(&a)); a.flags = CLONE_THREAD | CLONE_VM; failure("thread without handlers", clone3_(&a)); a.flags = 1ull << 40; failure("unknown flag", clone3_(&a)); failure("short", syscall(SYS_clone3, &a, 20)); a.flags = 0; a.stack = (uintptr_t)stack; failure("stack without size", clone3_(&a)); }
    { int n = 0; for (int i = 0; i < 200; i++) { tid_word = -1; pid_t p = clone(quick, top, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID, &n, NULL, NULL, (void *)&tid_word); if (p < 0) { printf("clone %s\n", strerrorname_np(errno)); break; } for (int w; (w = tid_word);) syscall(SYS_futex, &tid_word, FUTEX_WAIT, w, NULL); } printf("raw threads %d\n", n); }
    await("raw fork", ({ pid_t p = syscall(SYS_fork); if (!p) _exit(8 + (bad(1) != 0)); p; }));
    await("raw clone", ({ pid_t p = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); if (!p) _exit(8 + (bad(1) != 0)); p; }));
    await("vfork", ({ pid_t p = vfork(); if (!p) { shared = 100; _exit(2); } p; })); printf("shared %d\n", shared);
    { char *w[] = { argv[0], "count", "42", NULL }; await("vfork and exec", ({ pid_t p = vfork(); if (!p) { execv("/proc/self/exe", w); _exit(2); } p; })); pid_t p; posix_spawn(&p, "/proc/self/exe", NULL, NULL, w, environ); await("spawned", p); printf("spawn of none: %s\n", strerrorname_np(posix_spawn(&p, "/no/such", NULL, NULL, w, environ))); }
    await("failed exec", ({ pid_t p = fork(); if (!p) { for (int i = 0; i < 200; i++) execl("/etc/passwd", "x", NULL); _exit(errno == EACCES ? 11 : 12); } p; }));
    { int f = open("script", O_CREAT | O_WRONLY | O_TRUNC, 0700); write(f, "garbage", 7); close(f); await("no format", ({ pid_t p = fork(); if (!p) { for (int i = 0; i < 20; i++) execl("./script", "x", NULL); _exit(errno == ENOEXEC ? 13 : 14); } p; })); await("a shell's", ({ pid_t p = fork(); if (!p) { int g = open("script", O_WRONLY | O_TRUNC); write(g, "exit 17", 7); close(g); execlp("./script", "x", NULL); _exit(14); } p; })); unlink("script"); }

    /* Many, and at the same time. */
    { int good = 0; for (int i = 0; i < 300; i++) { pid_t p = fork(); if (!p) _exit(data[(i * 7919ul % (LEN / 1024)) * 1024] != (unsigned char)((i * 7919ul % (LEN / 1024)) * 13 + 1)); int st; waitpid(p, &st, 0); good += st == 0; } printf("forks %d\n", good); }
    { shared = 0; pthread_t t[3]; for (intptr_t i = 0; i < 3; i++) pthread_create(&t[i], NULL, busy, (void *)(i + 1)); int good = 0; for (int i = 0; i < 15; i++) { pid_t p = fork(); if (!p) { fill(2); _exit(bad(2) != 0); } int st; waitpid(p, &st, 0); good += st == 0; } shared = 1; int wrong = 0; for (int i = 0; i < 3; i++) { void *r; pthread_join(t[i], &r); wrong += r != NULL; } printf("forks among threads %d, wrong %d\n", good, wrong); }
    { int made = 0, right = 0; static pthread_t t[1000]; pthread_attr_t a; pthread_attr_init(&a); pthread_attr_setstacksize(&a, 64 << 10); for (int r = 0; r < 3; r++) { for (int i = 0; i < 1000; i++) made += pthread_create(&t[i], &a, thread, (void *)(intptr_t)i) == 0; for (int i = 0; i < 1000; i++) { void *v; pthread_join(t[i], &v); right += (intptr_t)v == i + 1; } } printf("threads %d, right %d\n", made, right); }
    { pthread_mutexattr_t a; pthread_mutexattr_init(&a); pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST); for (int kind = 0; kind < 2; kind++) { if (kind) pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT); robust = (void *)map(PG); pthread_mutex_init(robust, &a); pthread_t t; pthread_create(&t, NULL, holds, NULL); pthread_join(t, NULL); madvise(robust, PG, MADV_PAGEOUT); printf("robust: %s\n", strerrorname_np(pthread_mutex_lock(robust))); } }

    { int dead = 0; pthread_mutexattr_t a; pthread_mutexattr_init(&a); pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST); robust = (void *)map(PG); pthread_mutex_init(robust, &a); for (int i = 0; i < 200; i++) { pthread_t t; pthread_create(&t, NULL, holds, NULL); pthread_join(t, NULL); madvise(robust, PG, MADV_PAGEOUT); if (pthread_mutex_trylock(robust) == EOWNERDEAD) { dead++; pthread_mutex_consistent(robust); pthread_mutex_unlock(robust); } } printf("robust in a row: %d\n", dead); }
    { pthread_t t; void *r = NULL; int e = pthread_create(&t, NULL, keeps_its_word, NULL); pthread_join(t, &r); printf("its own word: %d %d\n", e, (int)(intptr_t)r); }

    /* Ends. */
    await("exit among calls", ({ pid_t p = fork(); if (!p) { int q[2]; pipe(q); for (int i = 0; i < 20; i++) { pthread_t t; pthread_create(&t, NULL, in_call, (void *)(intptr_t)q[0]); } usleep(10000); exit(21); } p; }));
    await("killed among calls", ({ pid_t p = fork(); if (!p) { int q[2]; pipe(q); for (int i = 0; i < 20; i++) { pthread_t t; pthread_create(&t, NULL, in_call, (void *)(intptr_t)q[0]); } raise(SIGKILL); } p; }));
    await("exec from a thread", ({ fflush(stdout); pid_t p = fork(); if (!p) { char *w[] = { argv[0], "tids", NULL }; words = w; int q[2]; pipe(q); pthread_t t; for (int i = 0; i < 5; i++) pthread_create(&t, NULL, in_call, (void *)(intptr_t)q[0]); pthread_create(&t, NULL, executes, NULL); pause(); } p; }));
    await("last thread's exit", ({ pid_t p = fork(); if (!p) { pthread_t t; pthread_create(&t, NULL, thread, NULL); pthread_exit(NULL); } p; }));
    { int q[2]; pipe(q); pid_t p = fork(); if (!p) { pid_t g = fork(); if (!g) { while (getppid() == p) usleep(100); fill(3); char c = bad(3) == 0 ? 'y' : 'n'; usleep(20000); write(q[1], &c, 1); _exit(0); } _exit(0); } waitpid(p, NULL, 0); char c = 0; close(q[1]); read(q[0], &c, 1); printf("a child without parent: %c\n", c); }
    { int q[2]; pipe(q); pid_t p = fork(); if (!p) { setsid(); if (fork()) _exit(0); int o = dup2(q[1], 0); (void)o; for (int i = 1; i < 20000; i++) close(i); mkdir("root", 0700); if (geteuid() == 0) { chroot("root"); chdir("/"); setgid(65534); setuid(65534); } fill(4); pid_t k = fork(); if (!k) { fill(5); _exit(bad(5) != 0); } int st; waitpid(k, &st, 0); char c = bad(4) == 0 && st == 0 ? 'y' : 'n'; write(0, &c, 1); _exit(0); } waitpid(p, NULL, 0); char c = 0; close(q[1]); read(q[0], &c, 1); printf("a daemon: %c\n", c); rmdir("root"); }
    printf("bad %zu\n", bad(1));
    return 0;
}
