/* Threads that fill megabytes of memory and, when all have, verify them: threads MEGABYTES THREADS, and
   with a third argument so many of these programs wait for each other too. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t bytes;
static unsigned long failures;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t all_have_filled, all_programs_have;
static int programs = 1;

static unsigned long value(size_t page, unsigned long seed)
{
    return (page * 0x9e3779b97f4a7c15UL) ^ (seed << 32);
}

/* Leaves a file, and waits until there is one from each program. */
static void wait_for_other_programs(void)
{
    char name[32];
    snprintf(name, sizeof name, "/tmp/filled.%d", getpid());
    close(open(name, O_CREAT | O_WRONLY, 0600));
    for (int files = 0; files < programs; usleep(2000)) {
        DIR *list = opendir("/tmp");
        struct dirent *entry;
        for (files = 0; (entry = readdir(list));)
            files += strncmp(entry->d_name, "filled.", 7) == 0;
        closedir(list);
    }
}

static void *work(void *argument)
{
    unsigned long seed = (unsigned long)argument, bad = 0;
    char *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        abort();
    for (size_t at = 0; at + 8 <= bytes; at += 4096)
        *(unsigned long *)(memory + at) = value(at, seed);
    if (pthread_barrier_wait(&all_have_filled) == PTHREAD_BARRIER_SERIAL_THREAD && programs > 1)
        wait_for_other_programs();
    pthread_barrier_wait(&all_programs_have);
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
    programs = argc > 3 ? atoi(argv[3]) : 1;
    pthread_barrier_init(&all_have_filled, 0, threads);
    pthread_barrier_init(&all_programs_have, 0, threads);
    for (long i = 0; i < threads; i++)
        if (pthread_create(&thread[i], 0, work, (void *)(i + 1)))
            return 2;
    for (int i = 0; i < threads; i++)
        pthread_join(thread[i], 0);
    printf("%d threads, %s MiB, %lu failures\n", threads, argv[1], failures);
    return failures != 0;
}
