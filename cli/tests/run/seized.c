/* A tracer stops all threads of a process that is busy with evicted memory, reads from it, and lets them go, again and
 * again: it finds each page, and the stops are those that it asked for. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"

enum { PAGE = 4096, PAGES = 3000, THREADS = 4, ROUNDS = 25, READS = 40 };
enum { ENDS, READY };

static char *memory;
static volatile int *shared;

static void *work(void *number) {
    unsigned seed = (long)number * 77 + 1;
    while (!shared[ENDS]) {
        seed = seed * 1103515245 + 12345;
        int page = (seed >> 8) % PAGES;
        CHECK(*(int *)(memory + page * PAGE) == page);
        memory[page * PAGE + 100 + (long)number] = seed;
    }
    return NULL;
}

static int be_busy(void) {
    pthread_t threads[THREADS];
    for (long i = 1; i < THREADS; i++) CHECK(!pthread_create(&threads[i], NULL, work, (void *)i));
    shared[READY] = 1;
    work(0);
    for (int i = 1; i < THREADS; i++) pthread_join(threads[i], NULL);
    return 7;
}

static int threads_of(pid_t process, pid_t *threads) {
    char name[64];
    snprintf(name, sizeof name, "/proc/%d/task", process);
    DIR *directory = opendir(name);
    CHECK(directory);
    int count = 0;
    for (struct dirent *entry; count < THREADS && (entry = readdir(directory));)
        if (entry->d_name[0] != '.') threads[count++] = atoi(entry->d_name);
    closedir(directory);
    return count;
}

static void stop(pid_t thread, int seizes) {
    if (!seizes) {
        CHECK(!ptrace(PTRACE_ATTACH, thread, 0, 0));
        return;
    }
    CHECK(!ptrace(PTRACE_SEIZE, thread, 0, 0));
    CHECK(!ptrace(PTRACE_INTERRUPT, thread, 0, 0));
}

static void wait_for(pid_t thread, int seizes) {
    int status;
    siginfo_t info;
    CHECK(waitpid(thread, &status, __WALL) == thread);
    CHECK(status == (seizes ? 128 << 16 | SIGTRAP << 8 | 0x7f : SIGSTOP << 8 | 0x7f));
    CHECK(!ptrace(PTRACE_GETSIGINFO, thread, 0, &info));
    CHECK(info.si_signo == (seizes ? SIGTRAP : SIGSTOP));
    if (seizes) CHECK(info.si_code == (SIGTRAP | 128 << 8));
}

int main(void) {
    memory = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    shared = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED && shared != MAP_FAILED);
    for (int i = 0; i < PAGES; i++) *(int *)(memory + i * PAGE) = i;
    pid_t process = fork();
    if (process == 0) _exit(be_busy());
    while (!shared[READY]) usleep(1000);
    int found = 0;
    for (int round = 0; round < 2 * ROUNDS; round++) {
        pid_t threads[THREADS];
        int count = threads_of(process, threads), seizes = round % 2;
        for (int i = 0; i < count; i++) stop(threads[i], seizes);
        for (int i = 0; i < count; i++) wait_for(threads[i], seizes);
        for (int i = 0; i < READS; i++) {
            int page = rand() % PAGES;
            found += (int)ptrace(PTRACE_PEEKDATA, process, memory + page * PAGE, 0) == page;
        }
        for (int i = 0; i < count; i++) CHECK(!ptrace(PTRACE_DETACH, threads[i], 0, 0));
        usleep(1000);
    }
    shared[ENDS] = 1;
    int status;
    waitpid(process, &status, 0);
    printf("found %d, status %x\n", found, status);
    return 0;
}
