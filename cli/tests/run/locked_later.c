// After mlockall, memory whose pages cannot come yet is still mapped: a thread's stack begins without rights, and a file
// may be shorter than its mapping. Memory without rights counts for nothing, however much there is of it.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LEN = 1 << 20 };

static void said(const char *what, int failed) { printf("%s: %s\n", what, failed ? strerrorname_np(errno) : "done"); }

static char *map(const char *what, size_t len, int rights, int flags, int file) {
    char *start = mmap(NULL, len, rights, flags, file, 0);
    said(what, start == MAP_FAILED);
    return start == MAP_FAILED ? NULL : start;
}

static void *use_heap(void *result) {
    char *block = malloc(1 << 18);
    memset(block, 1, 1 << 18);
    free(block);
    return result;
}

/* Gives rights to memory that had none, and shows that it is locked. */
static void allow(char *start) {
    if (!start) return;
    said("rights", mprotect(start, LEN, PROT_READ | PROT_WRITE));
    memset(start, 1, LEN);
    said("dropped", madvise(start, LEN, MADV_DONTNEED));
}

int main(void) {
    int private = MAP_PRIVATE | MAP_ANONYMOUS;
    FILE *file = tmpfile();
    if (!file || ftruncate(fileno(file), 4096)) return 1;
    char *before = map("before", LEN, PROT_NONE, private, -1);
    map("much before", 1ul << 30, PROT_NONE, private, -1);
    said("all", mlockall(MCL_CURRENT | MCL_FUTURE));
    allow(before);
    allow(map("without rights", LEN, PROT_NONE, private, -1));
    allow(map("locked without rights", LEN, PROT_NONE, private | MAP_LOCKED, -1));
    map("much", 1ul << 30, PROT_NONE, private, -1);
    map("shared", LEN, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1);
    map("short file", LEN, PROT_READ, MAP_PRIVATE, fileno(file));
    map("short file to write", LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file));
    map("short file without rights", LEN, PROT_NONE, MAP_PRIVATE, fileno(file));
    said("lock without rights", mlock(map("more", LEN, PROT_NONE, private, -1), LEN));
    pthread_t thread;
    void *result = NULL;
    if ((errno = pthread_create(&thread, NULL, use_heap, "done")) == 0) pthread_join(thread, &result);
    printf("thread: %s\n", result ? (char *)result : strerrorname_np(errno));
    said("none", munlockall());
}
