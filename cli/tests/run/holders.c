// Forks while another thread is in a call that takes the runtime's locks: neither process waits for ever.

#define _GNU_SOURCE
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { FORKS = 400, SIZE = 16 << 20, PATIENCE = 600 * 1000 };

static volatile int is_over;

static void *executes(void *unused) {
    char *arguments[] = {"x", 0};
    while (!is_over)
        execve("/etc/passwd", arguments, 0);
    return 0;
}

static void *asks_for_descriptors(void *unused) {
    struct rlimit limit;
    while (!is_over)
        getrlimit(RLIMIT_NOFILE, &limit);
    return 0;
}

static void *asks_for_sizes(void *unused) {
    struct rlimit limit;
    while (!is_over)
        getrlimit(RLIMIT_FSIZE, &limit);
    return 0;
}

static void *excepts(void *memory) {
    while (!is_over) {
        madvise(memory, SIZE / 2, MADV_DONTFORK);
        madvise(memory, SIZE / 2, MADV_DOFORK);
    }
    return 0;
}

static void forks_beside(void *(*other)(void *)) {
    char *memory = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    memset(memory, 1, SIZE);
    pthread_t thread;
    CHECK(pthread_create(&thread, 0, other, memory) == 0);
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (child == 0) {
            struct rlimit limit;
            getrlimit(RLIMIT_NOFILE, &limit);
            getrlimit(RLIMIT_FSIZE, &limit);
            madvise(memory + SIZE / 2, 4096, MADV_DONTFORK);
            _exit(memory[SIZE - 1] != 1);
        }
        int status;
        CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    }
    is_over = 1;
    pthread_join(thread, 0);
}

int main(int argc, char **argv) {
    struct { const char *name; void *(*call)(void *); } others[] = {
        {"executes", executes},
        {"descriptors", asks_for_descriptors},
        {"sizes", asks_for_sizes},
        {"excepts", excepts},
    };
    for (unsigned i = 0; i < sizeof others / sizeof *others; i++) {
        pid_t child = fork();
        if (child == 0) {
            setpgid(0, 0);
            forks_beside(others[i].call);
            _exit(0);
        }
        int status, time = 0;
        while (waitpid(child, &status, WNOHANG) == 0 && ++time < PATIENCE)
            usleep(1000);
        if (time == PATIENCE) {
            kill(-child, SIGKILL);
            printf("%s: hangs\n", others[i].name);
        } else {
            printf("%s: status %x\n", others[i].name, status);
        }
    }
}
