/* What a program's filters of system calls do to its calls, threads and children (seccomp(2)). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
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
#include <ucontext.h>
#include <unistd.h>

#define LD(o) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, o)
#define NR LD(offsetof(struct seccomp_data, nr))
#define IF(n, what) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, n, 0, 1), BPF_STMT(BPF_RET | BPF_K, what)
#define RET(what) BPF_STMT(BPF_RET | BPF_K, what)
#define INSTALL(flags, ...) ({ struct sock_filter f_[] = { __VA_ARGS__ }; struct sock_fprog p_ = { sizeof f_ / sizeof *f_, f_ }; syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &p_); })
static const char *err(long r) { return r < 0 ? strerrorname_np(errno) : "ok"; }
static void child(const char *name, void (*f)(void)) {
    fflush(stdout); pid_t p = fork();
    if (!p) { struct rlimit none = { 0, 0 }; setrlimit(RLIMIT_CORE, &none); prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); f(); fflush(stdout); _exit(0); }
    int st; waitpid(p, &st, 0); if (WIFSIGNALED(st)) printf("%s: signal %d\n", name, WTERMSIG(st)); else printf("%s: exit %d\n", name, WEXITSTATUS(st));
}
static void bad_programs(void) {
    printf("empty %s\n", err(({ struct sock_fprog p = { 0, NULL }; syscall(SYS_seccomp, 1, 0, &p); })));
    printf("no end %s\n", err(INSTALL(0, NR))); printf("jumps out %s\n", err(INSTALL(0, BPF_STMT(BPF_JMP | BPF_JA, 5), RET(0))));
    printf("unaligned %s\n", err(INSTALL(0, LD(3), RET(SECCOMP_RET_ALLOW)))); printf("beyond %s\n", err(INSTALL(0, LD(64), RET(SECCOMP_RET_ALLOW))));
    printf("not stored %s\n", err(INSTALL(0, BPF_STMT(BPF_LD | BPF_MEM, 3), RET(SECCOMP_RET_ALLOW)))); printf("division %s\n", err(INSTALL(0, BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), RET(SECCOMP_RET_ALLOW))));
    printf("unknown code %s, jump %s\n", err(INSTALL(0, BPF_STMT(0x100 | BPF_ALU | BPF_ADD | BPF_K, 1), RET(SECCOMP_RET_ALLOW))), err(INSTALL(0, BPF_STMT(0x100 | BPF_JMP | BPF_JA, 0), RET(SECCOMP_RET_ALLOW))));
    printf("packet %s\n", err(INSTALL(0, BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0), RET(SECCOMP_RET_ALLOW)))); printf("flags %s\n", err(INSTALL(1 << 20, RET(SECCOMP_RET_ALLOW))));
    printf("bad address %s\n", err(syscall(SYS_seccomp, 1, 0, 8))); printf("bad operation %s\n", err(syscall(SYS_seccomp, 77, 0, 0))); printf("strict with flags %s\n", err(syscall(SYS_seccomp, 0, 1, 0)));
    printf("mode %d\n", prctl(PR_GET_SECCOMP)); printf("good %s\n", err(INSTALL(0, RET(SECCOMP_RET_ALLOW)))); printf("mode %d\n", prctl(PR_GET_SECCOMP)); printf("strict now %s\n", err(prctl(PR_SET_SECCOMP, 1)));
}
static void errors(void) {
    INSTALL(0, NR, IF(SYS_getppid, SECCOMP_RET_ERRNO | ENOTTY), IF(SYS_getuid, SECCOMP_RET_ERRNO | 5000), IF(SYS_getgid, SECCOMP_RET_ERRNO), IF(SYS_getegid, SECCOMP_RET_TRACE), RET(SECCOMP_RET_ALLOW));
    printf("errno %s, most %d, none %ld, trace %s\n", err(syscall(SYS_getppid)), (syscall(SYS_getuid), errno), syscall(SYS_getgid), err(syscall(SYS_getegid)));
    /* The strictest counts, and of equals the newest. */
    INSTALL(0, NR, IF(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV), IF(SYS_getuid, SECCOMP_RET_ALLOW), IF(SYS_getpgid, SECCOMP_RET_LOG), RET(SECCOMP_RET_ALLOW));
    printf("newest %s, %d\n", err(syscall(SYS_getppid)), (syscall(SYS_getuid), errno)); printf("logged %d\n", syscall(SYS_getpgid, 0) > 0);
    pid_t p = fork(); if (!p) _exit(syscall(SYS_getppid) == -1 && errno == EXDEV); int st; waitpid(p, &st, 0); printf("inherited %d\n", WEXITSTATUS(st));
    p = vfork(); if (!p) _exit(syscall(SYS_getppid) == -1 && errno == EXDEV); waitpid(p, &st, 0); printf("by vfork %d\n", WEXITSTATUS(st));
}
static void arguments(void) {
    INSTALL(0, LD(offsetof(struct seccomp_data, arch)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0), RET(SECCOMP_RET_KILL_PROCESS), NR, BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_lseek, 0, 8),
        LD(offsetof(struct seccomp_data, args[1]) + 4), BPF_STMT(BPF_ST, 7), LD(offsetof(struct seccomp_data, args[1])), BPF_STMT(BPF_LDX | BPF_MEM, 7), BPF_STMT(BPF_ALU | BPF_ADD | BPF_X, 0), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff), BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO), BPF_STMT(BPF_RET | BPF_A, 0), RET(SECCOMP_RET_ALLOW));
    for (int i = 1; i < 4; i++) { errno = 0; syscall(SYS_lseek, 0, (uint64_t)i << 32 | 3, 0); printf("computed %d\n", errno); }
}
static void on_trap(int s, siginfo_t *i, void *c) { ucontext_t *u = c; printf("trapped: signal %d code %d errno %d call %d arch %x, at the call %d, rax %lld\n", s, i->si_code, i->si_errno, i->si_syscall, i->si_arch, (uintptr_t)i->si_call_addr == (uintptr_t)u->uc_mcontext.gregs[REG_RIP], u->uc_mcontext.gregs[REG_RAX]); u->uc_mcontext.gregs[REG_RAX] = 4242; }
static void traps(void) {
    struct sigaction a = { 0 }; a.sa_sigaction = on_trap; a.sa_flags = SA_SIGINFO; sigaction(SIGSYS, &a, NULL);
    INSTALL(0, NR, IF(SYS_getppid, SECCOMP_RET_TRAP | 99), RET(SECCOMP_RET_ALLOW)); printf("answered %ld\n", syscall(SYS_getppid));
    sigset_t m; sigfillset(&m); sigprocmask(SIG_SETMASK, &m, NULL); syscall(SYS_getppid);
}
static void trap_default(void) { INSTALL(0, NR, IF(SYS_getppid, SECCOMP_RET_TRAP), RET(SECCOMP_RET_ALLOW)); syscall(SYS_getppid); }
static void kills(void) { INSTALL(0, NR, IF(SYS_getppid, SECCOMP_RET_KILL_PROCESS), RET(SECCOMP_RET_ALLOW)); syscall(SYS_getppid); }
static void kills_only_thread(void) { INSTALL(0, NR, IF(SYS_getppid, SECCOMP_RET_KILL_THREAD), RET(SECCOMP_RET_ALLOW)); syscall(SYS_getppid); }
static void unknown(void) { INSTALL(0, NR, IF(SYS_getppid, 0x12340000), RET(SECCOMP_RET_ALLOW)); syscall(SYS_getppid); }
static int threads(void) { struct stat all; return stat("/proc/self/task", &all) ? 0 : all.st_nlink - 2; }
static void *dies(void *arg) { syscall(SYS_getppid); puts("is not killed"); return arg; }
static void kills_thread(void) { INSTALL(0, NR, IF(SYS_getppid, SECCOMP_RET_KILL_THREAD), RET(SECCOMP_RET_ALLOW)); pthread_t t; pthread_create(&t, NULL, dies, NULL); pthread_detach(t); while (threads() > 1) usleep(1000); puts("lives"); }
static void *adds_many(void *arg) { int n = 0; while (!INSTALL(0, RET(SECCOMP_RET_ALLOW))) n++; printf("many %d, then %s\n", n > 1000, err(-1)); return arg; }
static void many(void) { for (int i = 0; i < 2; i++) { pthread_t t; pthread_create(&t, NULL, adds_many, NULL); pthread_join(t, NULL); } puts("both have ended"); }
static void strict(void) { prctl(PR_SET_SECCOMP, 1); write(1, "written\n", 8); syscall(SYS_exit, 3); }
static void strict_kills(void) { prctl(PR_SET_SECCOMP, 1); syscall(SYS_getppid); }
static pthread_barrier_t barrier; static long seen;
static void *waits(void *arg) { if (arg) INSTALL(0, RET(SECCOMP_RET_ALLOW)); pthread_barrier_wait(&barrier); pthread_barrier_wait(&barrier); errno = 0; syscall(SYS_getppid); seen = errno; return NULL; }
static void synchronized(void) {
    for (int other = 0; other < 2; other++) {
        pthread_barrier_init(&barrier, NULL, 2); pthread_t t; pthread_create(&t, NULL, waits, (void *)(intptr_t)other); pthread_barrier_wait(&barrier);
        long r = INSTALL(SECCOMP_FILTER_FLAG_TSYNC, NR, IF(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV), RET(SECCOMP_RET_ALLOW)); printf("synchronized %d\n", r > 0 ? 1 : (int)r);
        r = INSTALL(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH, RET(SECCOMP_RET_ALLOW)); printf("or %s\n", err(r));
        pthread_barrier_wait(&barrier); pthread_join(t, NULL); printf("seen %ld\n", seen);
    }
}
static void executes(void) { INSTALL(0, NR, IF(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV), RET(SECCOMP_RET_ALLOW)); dup2(open("/dev/null", O_WRONLY), 2); execl("/proc/self/exe", "filters", "executed", NULL); }
static void memory(void) { /* what is allowed touches memory that is not there */
    size_t n = 40 << 20; unsigned char *d = mmap(NULL, n, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); for (size_t i = 0; i < n; i += 512) d[i] = i >> 9;
    INSTALL(0, NR, IF(SYS_write, SECCOMP_RET_ALLOW), IF(SYS_exit_group, SECCOMP_RET_ALLOW), RET(SECCOMP_RET_KILL_PROCESS)); size_t bad = 0; for (size_t i = 0; i < n; i += 512) bad += d[i] != (unsigned char)(i >> 9);
    char line[64]; write(1, line, sprintf(line, "bad %zu\n", bad)); syscall(SYS_exit_group, 0);
}
static void without_right(void) { if (setresuid(65534, 65534, 65534)) return; printf("without right %s\n", err(INSTALL(0, RET(SECCOMP_RET_ALLOW)))); }
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "executed")) { errno = 0; syscall(SYS_getppid); printf("executed %d\n", errno); return 0; }
    setvbuf(stdout, NULL, _IOLBF, 4096);
    child("bad programs", bad_programs); child("errors", errors); child("arguments", arguments); child("traps", traps); child("trap by default", trap_default); child("kills", kills); child("kills the only thread", kills_only_thread); child("kills a thread", kills_thread); child("unknown", unknown); child("many", many);
    child("strict", strict); child("strict kills", strict_kills); child("synchronized", synchronized); child("executes", executes); child("memory", memory);
    fflush(stdout); pid_t p = fork(); if (!p) { without_right(); _exit(0); } waitpid(p, NULL, 0);
    return 0;
}
