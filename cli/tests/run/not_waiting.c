/* A tracer that does not wait: its tracees go on. */
#define _GNU_SOURCE
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

static int to_child[2], to_parent[2];

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

/* Sleeps until the tracee is done, and waits for another child meanwhile. */
static void in_other_waits(void)
{
    int status;
    char byte;
    pid_t child = start(0), other = fork();
    if (other == 0) {
        CHECK(write(to_child[1], "x", 1) == 1 && read(to_parent[0], &byte, 1) == 1);
        _exit(5);
    }
    CHECK(waitpid(other, &status, 0) == other);
    printf("other's status %x\n", status);
    end(child);
    child = start(0);
    CHECK(write(to_child[1], "x", 1) == 1);
    struct timespec moment = {0, 1000000};
    CHECK(fcntl(to_parent[0], F_SETFL, O_NONBLOCK) == 0);
    while (read(to_parent[0], &byte, 1) != 1) CHECK(errno == EAGAIN && nanosleep(&moment, NULL) == 0);
    end(child);
}

/* A tracee that its tracer attached to. */
static void attached(void)
{
    int status;
    char byte;
    CHECK(pipe(to_child) == 0 && pipe(to_parent) == 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(read(to_child[0], &byte, 1) == 1);
        work();
        CHECK(write(to_parent[1], "x", 1) == 1);
        _exit(4);
    }
    CHECK(ptrace(PTRACE_SEIZE, child, NULL, NULL) == 0);
    CHECK(write(to_child[1], "x", 1) == 1);
    CHECK(read(to_parent[0], &byte, 1) == 1);
    end(child);
}

/* Its own stop is the program's to deal with: a look takes nothing from it. */
static void with_a_look(void)
{
    siginfo_t info = {0};
    int status;
    pid_t child = start(1);
    CHECK(waitid(P_PID, child, &info, WSTOPPED | WNOWAIT) == 0);
    printf("stopped by %d\n", info.si_status);
    usleep(20000);
    CHECK(waitpid(child, &status, 0) == child && status >> 8 == SIGSTOP);
    CHECK(write(to_child[1], "x", 1) == 1);
    CHECK(ptrace(PTRACE_CONT, child, NULL, NULL) == 0);
    end(child);
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
    in_other_waits();
    attached();
    with_a_look();
    while_ignoring();
    in_a_read();
    return 0;
}
