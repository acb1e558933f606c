// A filter that is set for all threads, while another thread creates new ones or adds a filter of its own: none
// escapes it.

#define _GNU_SOURCE
#include "check.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { ROUNDS = 200, THREADS = 40 };

static volatile int is_set, escaped;

static void *newcomer(void *unused) {
    while (!is_set)
        ;
    // The filter makes it fail.
    if (syscall(SYS_getppid) != -1 || errno != EACCES)
        escaped = 1;
    return 0;
}

static void *creator(void *unused) {
    pthread_t threads[THREADS];
    int count = 0;
    while (!is_set && count < THREADS)
        CHECK(pthread_create(&threads[count++], 0, newcomer, 0) == 0);
    while (count > 0)
        pthread_join(threads[--count], 0);
    return 0;
}

static volatile int is_ready, delay;

// Adds a filter of its own, before or after the one for all.
static void *adder(void *unused) {
    struct sock_filter code = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {1, &code};
    is_ready = 1;
    for (volatile int i = 0; i < delay; i++)
        ;
    CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0);
    return newcomer(0);
}

// Whether the filter was set: not after another thread has one of its own.
static int filter_all(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}

static int creation(int number) {
    pthread_t id;
    CHECK(pthread_create(&id, 0, creator, 0) == 0);
    for (volatile int i = 0; i < number * 1000; i++)
        ;
    CHECK(filter_all());
    is_set = 1;
    pthread_join(id, 0);
    return escaped;
}

static int addition(int number) {
    pthread_t id;
    delay = number % 100 * 40;
    CHECK(pthread_create(&id, 0, adder, 0) == 0);
    while (!is_ready)
        ;
    for (volatile int i = 0; i < 1000; i++)
        ;
    int applies = filter_all();
    is_set = 1;
    pthread_join(id, 0);
    return applies && escaped;
}

int main(int argc, char **argv) {
    CHECK(argc == 2 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    int (*round_of)(int) = strcmp(argv[1], "created") == 0 ? creation : addition;
    int found = 0;
    for (int i = 0; i < ROUNDS; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(round_of(i));
        int status;
        CHECK(child > 0 && waitpid(child, &status, 0) == child);
        found += status != 0;
    }
    printf("%d threads escaped\n", found);
}
