/* A tracer that does not wait: its tracees go on, and it hears only of their own stops. */
#include "check.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int to_child[2], to_parent[2];
static volatile sig_atomic_t heard, trapped;

static void hear(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    heard++;
    trapped += info->si_code == CLD_TRAPPED;
}

/* Does something with many calls, on memory that is new. */
static void work(void)
{
    for (int i = 0; i < 20; i++) {
        char *memory = calloc(1, 1 << 20);
        syscall(SYS_getppid);
        free(memory);
    }
}

static pid_t start(int stops)
{
    CHECK(pipe(to_child) == 0 && pipe(to_parent) == 0);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
        if (stops)
            raise(SIGSTOP);
        CHECK(read(to_child[0], &byte, 1) == 1);
        work();
        CHECK(write(to_parent[1], "x", 1) == 1);
        _exit(3);
    }
    return child;
}

static void end(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    printf("status %x\n", status);
    for (int i = 0; i < 2; i++)
        close(to_child[i]), close(to_parent[i]);
}

/* Reads from a pipe until the tracee has written to it. */
static void in_a_read(void)
{
    char byte;
    pid_t child = start(0);
    CHECK(write(to_child[1], "x", 1) == 1);
    CHECK(read(to_parent[0], &byte, 1) == 1);
    end(child);
}

/* Nothing ends a wait for the tracee's answer. */
static void in_a_poll(void)
{
    pid_t child = start(0);
    struct pollfd wanted = {.fd = to_parent[0], .events = POLLIN};
    CHECK(write(to_child[1], "x", 1) == 1);
    int ready = poll(&wanted, 1, -1);
    printf("poll %d\n", ready);
    end(child);
}

/* Its handler is called for the tracee's stop and its end. */
static void with_a_handler(int flags)
{
    struct sigaction action = {.sa_sigaction = hear, .sa_flags = SA_SIGINFO | SA_RESTART | flags};
    CHECK(sigaction(SIGCHLD, &action, NULL) == 0);
    heard = trapped = 0;
    int status;
    pid_t child = start(1);
    CHECK(waitpid(child, &status, 0) == child && status >> 8 == SIGSTOP);
    CHECK(write(to_child[1], "x", 1) == 1);
    CHECK(ptrace(PTRACE_CONT, child, NULL, NULL) == 0);
    end(child);
    printf("heard %d, of stops %d\n", heard, trapped);
    struct sigaction found;
    CHECK(sigaction(SIGCHLD, NULL, &found) == 0);
    CHECK(found.sa_sigaction == hear);
    signal(SIGCHLD, SIG_DFL);
}

/* Its children need no wait where it ignores their end. */
static void while_ignoring(void)
{
    int status;
    char byte;
    signal(SIGCHLD, SIG_IGN);
    pid_t child = start(0);
    CHECK(write(to_child[1], "x", 1) == 1);
    CHECK(read(to_parent[0], &byte, 1) == 1);
    printf("wait %d\n", waitpid(child, &status, 0) == -1 && errno == ECHILD);
    pid_t other = fork();
    if (other == 0)
        execl("/bin/sh", "sh", "-c", "trap", NULL);
    printf("wait %d\n", waitpid(other, &status, 0) == -1 && errno == ECHILD);
    signal(SIGCHLD, SIG_DFL);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    in_a_read();
    in_a_poll();
    with_a_handler(0);
    with_a_handler(SA_NOCLDSTOP);
    while_ignoring();
    in_a_read();
    return 0;
}
