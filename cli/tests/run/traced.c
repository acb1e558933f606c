/* A parent traces the program that its child executes; the child is a copy, or its parent waits for it. */
#include <signal.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    for (int waits = 0; waits < 2; waits++) {
        pid_t child = waits ? vfork() : fork();
        if (child == 0) {
            ptrace(PTRACE_TRACEME, 0, NULL, NULL);
            execlp("no such program", "x", NULL);
            execlp("echo", "echo", "executed", NULL);
            _exit(9);
        }
        int status, stops = 0;
        while (waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
            stops++;
            ptrace(PTRACE_CONT, child, NULL, WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status));
        }
        printf("stops: %d, status %x\n", stops, status);
        fflush(stdout);
    }
    /* One that does not want to know why its child stopped. */
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execlp("echo", "echo", "executed", NULL);
        _exit(9);
    }
    siginfo_t info = {0};
    waitpid(child, NULL, 0);
    ptrace(PTRACE_GETSIGINFO, child, NULL, &info);
    printf("stopped by: %d\n", info.si_signo);
    fflush(stdout);
    ptrace(PTRACE_CONT, child, NULL, NULL);
    int status;
    waitpid(child, &status, 0);
    printf("status %x\n", status);
    return 0;
}
