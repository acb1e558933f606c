// Threads that store while pages are evicted under them: no store is lost. A child shares the pages
// copy-on-write, so that the host copies a page for its next store; the child's view stays.
//
// `random`: two threads store at random. `once LIMIT`: each page gets one store, the first since it was shared,
// at about the time of its eviction. The limit is in MiB.

#define _GNU_SOURCE
#include "check.h"
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define PAGES 2048UL
#define THREADS 2
#define STORES 40000
#define ROUNDS 6

// A page holds its number of stores in its first and in its last word.
static uint64_t *words;
// What it should hold: half a page of memory for each thread, always in use.
static uint16_t expected[THREADS][PAGES / THREADS];

static uint64_t next(uint64_t *random) {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

static uint64_t *page(unsigned long thread, unsigned long at) {
    return words + (thread * (PAGES / THREADS) + at) * (PAGE / sizeof(uint64_t));
}

static unsigned long wrong(void) {
    unsigned long found = 0;
    for (unsigned long thread = 0; thread < THREADS; thread++)
        for (unsigned long at = 0; at < PAGES / THREADS; at++) {
            uint64_t *start = page(thread, at);
            found += start[0] != expected[thread][at] || start[PAGE / 8 - 1] != expected[thread][at];
        }
    return found;
}

static void *store(void *argument) {
    unsigned long thread = (unsigned long)argument;
    uint64_t random = 0x9e3779b97f4a7c15UL + thread;
    for (int i = 0; i < STORES; i++) {
        unsigned long at = next(&random) % (PAGES / THREADS);
        volatile uint64_t *start = page(thread, at);
        start[0]++;
        start[PAGE / 8 - 1]++;
        expected[thread][at]++;
    }
    return NULL;
}

static void store_in_threads(void) {
    pthread_t threads[THREADS];
    for (unsigned long thread = 0; thread < THREADS; thread++)
        CHECK(pthread_create(&threads[thread], NULL, store, (void *)thread) == 0);
    for (unsigned long thread = 0; thread < THREADS; thread++)
        CHECK(pthread_join(threads[thread], NULL) == 0);
}

// A child that shares everything, and looks at it when the parent closes the pipe.
static pid_t share(int *hold) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char byte;
        close(ends[1]);
        CHECK(read(ends[0], &byte, 1) == 0);
        _exit(wrong() == 0 ? 0 : 1);
    }
    close(ends[0]);
    *hold = ends[1];
    return child;
}

static int at_random(void) {
    words = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(words != MAP_FAILED);
    for (unsigned long at = 0; at < PAGES * PAGE; at += PAGE)
        *(volatile uint64_t *)((char *)words + at) = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int hold, status;
        pid_t child = share(&hold);
        store_in_threads();
        printf("round %d: %lu pages wrong\n", round, wrong());
        close(hold);
        CHECK(waitpid(child, &status, 0) == child);
        printf("its child: %d\n", status);
    }
    return 0;
}

// --- once ---

// Few enough that a fork shares them without the memory manager, if the limit is 32 MiB.
#define SHARED 400UL
static pthread_barrier_t filled;

static char *map(size_t bytes) {
    char *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(start != MAP_FAILED);
    return start;
}

static void *store_once(void *pages) {
    pthread_barrier_wait(&filled);
    for (unsigned long i = 0; i < SHARED; i++) {
        unsigned long at = i * 149 % SHARED;
        *(volatile uint64_t *)((char *)pages + at * PAGE) = at + 1;
        for (volatile int pause = 0; pause < 4000; pause++) {
        }
    }
    return NULL;
}

static int once(unsigned long limit) {
    int hold, ends[2], lost = 0;
    char byte, *pages = map(SHARED * PAGE), *hog;
    for (unsigned long at = 0; at < SHARED; at++) *(volatile uint64_t *)(pages + at * PAGE) = at;
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        close(ends[1]);
        CHECK(read(ends[0], &byte, 1) == 0);
        for (unsigned long at = 0; at < SHARED; at++)
            lost += *(volatile uint64_t *)(pages + at * PAGE) != at;
        _exit(lost != 0);
    }
    close(ends[0]);
    hog = map(2 * limit);
    pthread_t thread;
    pthread_barrier_init(&filled, NULL, 2);
    CHECK(pthread_create(&thread, NULL, store_once, pages) == 0);
    // The rest of memory, and then more.
    size_t at = 0;
    for (; at < limit - (limit >> 3); at += PAGE) hog[at] = 1;
    pthread_barrier_wait(&filled);
    for (; at < 2 * limit; at += PAGE) hog[at] = 1;
    CHECK(pthread_join(thread, NULL) == 0);
    for (unsigned long page = 0; page < SHARED; page++)
        lost += *(volatile uint64_t *)(pages + page * PAGE) != page + 1;
    close(ends[1]);
    CHECK(waitpid(child, &hold, 0) == child);
    return lost + hold;
}

int main(int argc, char **argv) {
    if (argc < 3) return at_random();
    for (int round = 0; round < ROUNDS; round++) {
        int status;
        fflush(stdout);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) _exit(once(strtoul(argv[2], NULL, 10) << 20) ? 1 : 0);
        CHECK(waitpid(child, &status, 0) == child);
        printf("round %d: %d\n", round, status);
    }
    return 0;
}
