// Each signal whose default dumps core stops a tracee once: sent, raised by a fault, sent once more by a handler.
#define _GNU_SOURCE
#include "check.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static volatile int zero;

static void again(int signal_number) {
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void end(int way) {
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
    switch (way) {
    case 0: *(volatile int *)8 = 1;
    case 1: abort();
    case 2: raise(SIGQUIT);
    case 3: zero = 1 / zero;
    case 4: __asm__ volatile("ud2");
    case 5: raise(SIGTERM);
    case 6: signal(SIGABRT, again), raise(SIGABRT);
    case 7: signal(SIGSEGV, again), *(volatile int *)8 = 1;
    case 8: kill(getpid(), SIGTRAP);
    case 9: __asm__ volatile("int3");
    case 10: __asm__ volatile("hlt");
    case 11: *(volatile int *)mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, memfd_create("empty", 0), 0) = 1;
    case 12: syscall(SYS_tgkill, getpid(), getpid(), SIGSYS);
    case 13: {
        // A forbidden page that has left.
        char *memory = mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(memory, 1, 8 << 20);
        mprotect(memory, 4096, PROT_READ);
        *memory = 2;
    }
    }
    _exit(2);
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    struct rlimit none = {0};
    CHECK(setrlimit(RLIMIT_CORE, &none) == 0);
    for (int way = 0; way < 14; way++) {
        pid_t child = fork();
        if (child == 0) end(way);
        int status, stops = 0;
        while (waitpid(child, &status, 0) == child && WIFSTOPPED(status) && stops++ < 9) {
            siginfo_t info = {0};
            CHECK(ptrace(PTRACE_GETSIGINFO, child, NULL, &info) == 0);
            printf("%d: signal %d, code %d\n", way, info.si_signo, info.si_code);
            ptrace(PTRACE_CONT, child, NULL, WSTOPSIG(status) == SIGSTOP ? 0 : WSTOPSIG(status));
        }
        printf("%d: end %x\n", way, status);
    }
    return 0;
}
