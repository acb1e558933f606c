/* Threads that allocate, resize and free at random, and children forked meanwhile that do the same. The program
 * ends with 2 unless the symbol that it is given is there, by which an allocator is known. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 3, BLOCKS = 400, ROUNDS = 2500, FORKS = 6 };

struct block {
    unsigned char *bytes;
    size_t len;
    unsigned char value;
};

static void fail(const char *what) {
    printf("%s is wrong\n", what);
    exit(1);
}

static unsigned next(unsigned *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Mostly small, now and then one that the allocator maps by itself. */
static size_t length(unsigned *state) {
    unsigned kind = next(state) % 100;
    return 1 + next(state) % (kind < 60 ? 200 : kind < 98 ? 60000 : 3000000);
}

static void check(const struct block *block, size_t len) {
    for (size_t i = 0; i < len; i += 61)
        if (block->bytes[i] != block->value) fail("a block");
}

static void change(struct block *block, unsigned *state) {
    if (block->bytes) check(block, block->len);
    if (block->bytes && next(state) % 3 == 0) {
        free(block->bytes);
        block->bytes = NULL;
        return;
    }
    size_t len = length(state), kept = len < block->len ? len : block->len;
    int is_new = block->bytes == NULL;
    block->bytes = is_new && next(state) % 2 ? calloc(1, len) : realloc(block->bytes, len);
    if (!block->bytes) fail("an allocation");
    if (!is_new) check(block, kept);
    block->len = len;
    block->value = next(state);
    memset(block->bytes, block->value, len);
}

static void work(unsigned seed, unsigned rounds) {
    struct block blocks[BLOCKS] = {{0}};
    for (unsigned round = 0; round < rounds; round++) change(&blocks[next(&seed) % BLOCKS], &seed);
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (blocks[i].bytes) check(&blocks[i], blocks[i].len);
        free(blocks[i].bytes);
    }
}

static void *thread(void *number) {
    work((unsigned)(size_t)number, ROUNDS);
    return NULL;
}

int main(int count, char **arguments) {
    if (count < 2 || !dlsym(RTLD_DEFAULT, arguments[1])) return 2;
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, thread, (void *)i);
    for (unsigned i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (child == 0) {
            work(100 + i, ROUNDS / 8);
            exit(0);
        }
        int status;
        if (waitpid(child, &status, 0) != child || status != 0) fail("a child");
    }
    for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    printf("right\n");
    return 0;
}
