/* Instructions for each kind of page fault, under QEMU's instruction count: the time stamp counter
   then counts one for an instruction. Prints the median of each kind: "NAME MEDIAN".

   With the argument "single" only the fault on a cached page of a file, on a machine that maps no
   pages around the one that was touched. With "swap" also the way back from swap. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 1024
#define SIZE (PAGES * 4096UL)

static uint64_t sample[PAGES], overhead;

static inline uint64_t now(void)
{
    uint32_t low, high;
    __asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
    return low | (uint64_t)high << 32;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t median(int count)
{
    qsort(sample, count, sizeof *sample, compare);
    return sample[count / 2] - overhead;
}

static void print(const char *name, uint64_t value)
{
    printf("%s %lu\n", name, value);
    fflush(stdout);
}

static char *map(int protection, int flags, int file)
{
    char *at = mmap(0, SIZE, protection, flags | (file < 0 ? MAP_ANONYMOUS : 0), file, 0);
    if (at == MAP_FAILED)
        exit(1);
    return at;
}

static void touch(const char *name, char *at, int writes)
{
    for (int i = 0; i < PAGES; i++) {
        volatile char *byte = at + i * 4096UL;
        uint64_t start = now();
        if (writes)
            *byte = 1;
        else
            (void)*byte;
        sample[i] = now() - start;
    }
    print(name, median(PAGES));
}

static void anonymous(void)
{
    char *at = map(3, MAP_PRIVATE, -1);
    touch("anonymous_write", at, 1);
    mprotect(at, SIZE, PROT_READ);
    mprotect(at, SIZE, PROT_READ | PROT_WRITE);
    touch("reuse_by_the_sole_owner", at, 1);
    uint64_t start = now();
    munmap(at, SIZE);
    print("unmap_a_page", (now() - start) / PAGES);
    at = map(3, MAP_PRIVATE, -1);
    touch("anonymous_read", at, 0);
    touch("write_after_it", at, 1);
    munmap(at, SIZE);
}

/* A file whose pages are all in memory. */
static int cached_file(void)
{
    static char page[4096];
    int file = open("/tmp/faults", O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (int i = 0; i < PAGES; i++)
        if (write(file, page, sizeof page) != sizeof page)
            exit(1);
    return file;
}

static void single(void)
{
    touch("cached_file_page", map(PROT_READ, MAP_SHARED, cached_file()), 0);
}

static void file(void)
{
    int file = cached_file();
    char *at = map(PROT_READ, MAP_SHARED, file);
    uint64_t start = now();
    for (int i = 0; i < PAGES; i++)
        (void)*(volatile char *)(at + i * 4096UL);
    print("cached_file_page_with_fault_around", (now() - start) / PAGES);
    munmap(at, SIZE);
    at = map(3, MAP_PRIVATE, file);
    touch("private_file_write", at, 1);
    munmap(at, SIZE);
    close(file);
}

static void forks(void)
{
    uint64_t best = ~0UL;
    for (int i = 0; i < 8; i++) {
        uint64_t start = now();
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        waitpid(child, 0, 0);
        uint64_t took = now() - start;
        best = took < best ? took : best;
    }
    print("fork_exit_wait", best);
    char *at = map(3, MAP_PRIVATE, -1);
    memset(at, 1, SIZE);
    int ends[2];
    if (pipe(ends))
        exit(1);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(ends[1]);
        _exit(read(ends[0], &byte, 1) != 0);
    }
    touch("copy_on_write", at, 1);
    close(ends[1]);
    close(ends[0]);
    waitpid(child, 0, 0);
    munmap(at, SIZE);
}

static void calls(void)
{
    for (int i = 0; i < 500; i++) {
        uint64_t start = now();
        syscall(SYS_getppid);
        sample[i] = now() - start;
    }
    print("getppid", median(500));
    for (int i = 0; i < 500; i++) {
        uint64_t start = now();
        munmap(mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 4096);
        sample[i] = now() - start;
    }
    print("mmap_and_munmap", median(500));
}

/* A page at a time, whichever way it comes back: the sum is divided. The content is that of the
   measurement of Linux, with zram and LZ4. */
static void swap(void)
{
    char *at = map(3, MAP_PRIVATE, -1);
    for (uint64_t i = 0; i < PAGES; i++) {
        uint64_t *word = (uint64_t *)(at + i * 4096);
        for (uint64_t j = 0; j < 512; j++)
            word[j] = j & 3 ? i : i * 2654435761u + j * 40503u;
    }
    if (madvise(at, SIZE, MADV_PAGEOUT))
        exit(1);
    uint64_t start = now();
    for (int i = 0; i < PAGES; i++)
        (void)*(volatile char *)(at + i * 4096UL);
    print("swap_in", (now() - start) / PAGES);
    munmap(at, SIZE);
}

int main(int argc, char **argv)
{
    for (int i = 0; i < 64; i++) {
        uint64_t start = now();
        sample[i] = now() - start;
    }
    overhead = 0;
    overhead = median(64);
    if (argc > 1 && strcmp(argv[1], "single") == 0) {
        single();
        return 0;
    }
    anonymous();
    file();
    forks();
    calls();
    if (argc > 1 && strcmp(argv[1], "swap") == 0)
        swap();
    return 0;
}
