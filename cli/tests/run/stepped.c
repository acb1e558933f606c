// A tracer has its tracee execute one instruction at a time, through calls and faults, and then lets it run: it does
// not stop once more.
#define _GNU_SOURCE
#include "check.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { PAGE = 4096, PAGES = 1536 };

static void run(void) {
    volatile char *memory = malloc(PAGES * PAGE);
    for (long i = 0; i < PAGES; i++) memory[i * PAGE] = i;
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
    int wrong = 0;
    for (int i = 0; i < 3; i++) {
        wrong += syscall(SYS_getppid) == -1;
        wrong += memory[i * PAGE] != (char)i;
    }
    raise(SIGUSR1);
    for (long i = 0; i < PAGES; i++) wrong += memory[i * PAGE] != (char)i;
    _exit(wrong ? 1 : 3);
}

int main(void) {
    pid_t child = fork();
    if (child == 0) run();
    int status, steps = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
    while (WIFSTOPPED(status) && WSTOPSIG(status) != SIGUSR1) {
        CHECK(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0);
        CHECK(waitpid(child, &status, 0) == child);
        steps++;
    }
    printf("%s steps, then %x\n", steps > 100 ? "many" : "few", status);
    CHECK(ptrace(PTRACE_CONT, child, NULL, NULL) == 0);
    CHECK(waitpid(child, &status, 0) == child);
    printf("at last %x\n", status);
    kill(child, SIGKILL);
    return 0;
}
