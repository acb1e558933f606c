/* A tracer prints the system calls of its tracee, from a stop until the end, and looks at stops before it takes
   them. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_mutex_t *robust_mutex(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_t *mutex = malloc(sizeof *mutex);
    pthread_mutex_init(mutex, &attributes);
    return mutex;
}

#define LEN (6 << 20)

static void trace(int locks)
{
    pid_t child = fork();
    if (child == 0) {
        pthread_mutex_t *mutex = robust_mutex();
        char *memory = malloc(LEN);
        memset(memory, 1, LEN);
        __asm__ volatile("" ::: "memory");
        if (locks)
            pthread_mutex_lock(mutex);
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        getppid();
        // Pages come back and others leave, without a call.
        for (volatile char *at = memory; at < memory + LEN; at += 4096)
            *at = 2;
        getuid();
        // The runtime makes these by others.
        signal(SIGUSR1, SIG_IGN);
        signal(SIGUSR1, SIG_DFL);
        getegid();
        _exit(3);
    }
    int status, enters = 1;
    waitpid(child, &status, 0);
    printf("status %x\n", status);
    ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD);
    while (ptrace(PTRACE_SYSCALL, child, NULL, NULL) == 0 && waitpid(child, &status, 0) == child
           && WIFSTOPPED(status)) {
        if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
            printf("signal %d\n", WSTOPSIG(status));
            continue;
        }
        struct user_regs_struct registers;
        ptrace(PTRACE_GETREGS, child, NULL, &registers);
        if (enters && registers.orig_rax != SYS_rt_sigprocmask && registers.orig_rax != SYS_rt_sigaction)
            printf("call %lld\n", registers.orig_rax);
        enters = !enters;
    }
    printf("status %x\n", status);
}

/* Looks at each stop, and then waits for it: both tell the same. */
static void look(void)
{
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        for (int i = 0; i < 3; i++) {
            getppid();
            raise(SIGUSR1);
        }
        _exit(3);
    }
    siginfo_t seen, taken;
    do {
        waitid(P_PID, child, &seen, WSTOPPED | WEXITED | WNOWAIT);
        waitid(P_PID, child, &taken, WSTOPPED | WEXITED);
        printf("seen %d %d, taken %d %d\n", seen.si_code, seen.si_status, taken.si_code, taken.si_status);
    } while (taken.si_code != CLD_EXITED && ptrace(PTRACE_CONT, child, NULL, NULL) == 0);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    trace(0);
    trace(1);
    look();
    return 0;
}
