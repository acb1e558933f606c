/* Threads that fill and verify megabytes of memory each: threads.c MEGABYTES THREADS. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static size_t bytes;
static unsigned long failures;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned long value(size_t page, unsigned long seed)
{
    return (page * 0x9e3779b97f4a7c15UL) ^ (seed << 32);
}

static void *work(void *argument)
{
    unsigned long seed = (unsigned long)argument, bad = 0;
    char *memory = malloc(bytes);
    for (size_t at = 0; at + 8 <= bytes; at += 4096)
        *(unsigned long *)(memory + at) = value(at, seed);
    for (int pass = 0; pass < 2; pass++)
        for (size_t at = 0; at + 8 <= bytes; at += 4096)
            bad += *(unsigned long *)(memory + at) != value(at, seed);
    pthread_mutex_lock(&lock);
    failures += bad;
    pthread_mutex_unlock(&lock);
    free(memory);
    return 0;
}

int main(int argc, char **argv)
{
    int threads = argc > 2 ? atoi(argv[2]) : 2;
    pthread_t thread[16];
    bytes = (size_t)atoi(argv[1]) * 1048576 / threads;
    for (long i = 0; i < threads; i++)
        if (pthread_create(&thread[i], 0, work, (void *)(i + 1)))
            return 2;
    for (int i = 0; i < threads; i++)
        pthread_join(thread[i], 0);
    printf("%d threads, %s MiB, %lu failures\n", threads, argv[1], failures);
    return failures != 0;
}
