/* Threads that fill and verify megabytes of memory each, at the same time: threads MEGABYTES THREADS. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static size_t bytes;
static unsigned long failures;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t all_have_filled;

static unsigned long value(size_t page, unsigned long seed)
{
    return (page * 0x9e3779b97f4a7c15UL) ^ (seed << 32);
}

static void *work(void *argument)
{
    unsigned long seed = (unsigned long)argument, bad = 0;
    char *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        abort();
    for (size_t at = 0; at + 8 <= bytes; at += 4096)
        *(unsigned long *)(memory + at) = value(at, seed);
    pthread_barrier_wait(&all_have_filled);
    for (int pass = 0; pass < 2; pass++)
        for (size_t at = 0; at + 8 <= bytes; at += 4096)
            bad += *(unsigned long *)(memory + at) != value(at, seed);
    pthread_mutex_lock(&lock);
    failures += bad;
    pthread_mutex_unlock(&lock);
    munmap(memory, bytes);
    return 0;
}

int main(int argc, char **argv)
{
    int threads = argc > 2 ? atoi(argv[2]) : 2;
    pthread_t thread[16];
    bytes = (size_t)atoi(argv[1]) * 1048576 / threads;
    pthread_barrier_init(&all_have_filled, 0, threads);
    for (long i = 0; i < threads; i++)
        if (pthread_create(&thread[i], 0, work, (void *)(i + 1)))
            return 2;
    for (int i = 0; i < threads; i++)
        pthread_join(thread[i], 0);
    printf("%d threads, %s MiB, %lu failures\n", threads, argv[1], failures);
    return failures != 0;
}
