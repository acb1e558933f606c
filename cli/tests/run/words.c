// A program with more arguments than one call may keep resident.

#define _GNU_SOURCE
#include "check.h"
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

extern char **environ;

static void run(int words, int len) {
    size_t bytes = (size_t)words * len + (words + 1) * sizeof(char *);
    char **array = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(array != MAP_FAILED);
    char *word = (char *)(array + words + 1);
    for (int i = 0; i < words; i++, word += len) {
        array[i] = word;
        memset(word, 'a' + i % 26, len - 1);
        word[len - 1] = 0;
    }
    array[words] = NULL;
    array[0] = "sh";
    array[1] = "-c";
    array[2] = "echo $# ${#1} $(echo \"$@\" | cksum)";
    madvise(array, bytes, MADV_PAGEOUT);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        execve("/bin/sh", array, environ);
        printf("%d of %d: %s\n", words, len, strerrorname_np(errno));
        fflush(stdout);
        _exit(1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    printf("status %x\n", status);
    munmap(array, bytes);
}

int main(void) {
    size_t much = 8ul << 20;
    char *filled = mmap(NULL, much, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t at = 0; at < much; at += 4096) filled[at] = 1;
    munmap(filled, much);
    run(100, 10);
    run(5000, 20);
    run(700, 1000);
    run(8, 100000);
    run(8, 200000);
    // The pointers fill the new stack, whose top is at random: the runtime needs some below.
    for (int i = 0; i < 12; i++) run(30000 + 100 * i, 10);
    struct rlimit stack = {1 << 20, 1 << 20};
    CHECK(!setrlimit(RLIMIT_STACK, &stack));
    run(8, 100000);
    run(100000, 90);
    return 0;
}
