// A process makes the first process of a PID namespace itself, although another one has looked at its evicted memory
// since it asked for the namespace.

#define _GNU_SOURCE
#include "check.h"
#include <sched.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 6144, PAGE = 4096 };
static char *memory;
static volatile int *step;

static void make_namespace(void)
{
    for (long i = 0; i < PAGES; i++) memory[i * PAGE] = 1;
    if (unshare(CLONE_NEWPID)) _exit(77);
    *step = 1;
    while (*step == 1) usleep(1000);
    pid_t first = fork();
    CHECK(first >= 0);
    if (first == 0) {
        printf("the first one is %d\n", getpid());
        fflush(stdout);
        pid_t second = fork();
        CHECK(second >= 0);
        if (second == 0) _exit(0);
        CHECK(waitpid(second, NULL, 0) == second);
        _exit(5);
    }
    int status;
    CHECK(waitpid(first, &status, 0) == first);
    printf("it ended with %d\n", WEXITSTATUS(status));
    fflush(stdout);
    _exit(0);
}

int main(void)
{
    memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    step = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child = fork();
    if (child == 0) make_namespace();
    while (*step == 0 && waitpid(child, NULL, WNOHANG) == 0) usleep(1000);
    for (long i = 0; i < PAGES; i += PAGES / 16) {
        char byte;
        struct iovec here = {&byte, 1}, there = {memory + i * PAGE, 1};
        process_vm_readv(child, &here, 1, &there, 1, 0);
    }
    *step = 2;
    waitpid(child, NULL, 0);
    return 0;
}
