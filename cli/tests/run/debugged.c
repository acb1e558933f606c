/* A tracer is shown the faults of its tracee that are the tracee's, once each, and none that are not. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEN (24ul << 20)
static unsigned char *data, *beyond;
static sigjmp_buf back;
static volatile long seen;
static void *map(size_t n, int flags, int fd) { void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, flags, fd, 0); if (p == MAP_FAILED) abort(); return p; }
static void on_bus(int s, siginfo_t *i, void *c) { seen = s << 8 | i->si_code; if ((unsigned char *)i->si_addr != beyond || i->si_errno) seen = -1; siglongjmp(back, 1); }
static void use(void) { for (int r = 1; r < 3; r++) for (size_t i = 0; i < LEN; i += 4096) { if (r == 2 && data[i] != (unsigned char)(i >> 12)) _exit(9); data[i] = i >> 12; } }
static void sent(int s) { seen++; }
static void tracee(void) {
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    use(); raise(SIGSTOP); use();
    /* The end of a file; the tracer lets it through at the second time. */
    struct sigaction a = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO }; sigaction(SIGBUS, &a, NULL);
    if (!sigsetjmp(back, 1)) *(volatile char *)beyond = 1;
    if (seen != (SIGBUS << 8 | BUS_ADRERR)) _exit(8);
    use();
    /* A signal that somebody sends. */
    seen = 0; signal(SIGBUS, sent); raise(SIGBUS); if (seen != 1) _exit(7);
    use();
    signal(SIGBUS, SIG_DFL); *(volatile char *)beyond = 1; _exit(6);
}

int main(void) {
    FILE *f = tmpfile(); data = map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1); beyond = map(4096, MAP_SHARED, fileno(f));
    pid_t p = fork(); if (!p) tracee();
    int st, stops = 0, faults = 0; uintptr_t at = 0;
    while (waitpid(p, &st, 0) == p && WIFSTOPPED(st)) {
        siginfo_t i; memset(&i, 0, sizeof i); struct user_regs_struct r;
        int s = WSTOPSIG(st); ptrace(PTRACE_GETSIGINFO, p, NULL, &i); ptrace(PTRACE_GETREGS, p, NULL, &r);
        if (s == SIGBUS && i.si_code > 0) { faults++; if (faults == 1) at = r.rip; }
        printf("signal %d, code %d, number %d", s, i.si_code, i.si_errno);
        if (i.si_code > 0) printf(", address %d, instruction %d", (unsigned char *)i.si_addr == beyond, faults > 2 || r.rip == at);
        printf("\n"); fflush(stdout);
        if (++stops > 20) { kill(p, SIGKILL); break; }
        ptrace(PTRACE_CONT, p, NULL, s == SIGSTOP || faults == 1 && s == SIGBUS ? 0 : s);
    }
    printf("stops %d, status %x\n", stops, st);
    return 0;
}
