// Threads make calls that name managed pages while another thread forks. A child changes its mappings,
// which waits for ever if a lock was copied while one of these threads held it.

#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 6, FORKS = 100, MANY = 24 << 20, PAGE = 4096 };

static volatile int is_over;

static char *fresh(long len) {
    char *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

static void *read_zeros(void *unused) {
    int zeros = open("/dev/zero", O_RDONLY);
    char *buffer = fresh(PAGE);
    while (!is_over) CHECK(read(zeros, buffer, 64) == 64);
    close(zeros);
    return unused;
}

// Whether a child changes its mappings and ends.
static int child_ends(void) {
    pid_t child = fork();
    if (child == 0) {
        alarm(300);
        char *at = fresh(16 * PAGE);
        at[PAGE] = 1;
        munmap(at, 16 * PAGE);
        _exit(7);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 7;
}

int main(void) {
    char *many = fresh(MANY);
    for (long at = 0; at < MANY; at += PAGE) many[at] = 1;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, read_zeros, NULL) == 0);
    }
    int ended = 0;
    while (ended < FORKS && child_ends()) ended++;
    is_over = 1;
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    printf("%d children ended\n", ended);
    return 0;
}
