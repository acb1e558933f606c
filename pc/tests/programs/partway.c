/* Calls that stop halfway, or at once: what was not moved is still there. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ALL = 100000, PIPE = 65536 };
static char bytes[ALL], got[ALL];

static void told(const char *what, long result, int file)
{
    printf("%s: %ld (%s), file at %ld\n", what, result, result < 0 ? strerror(errno) : "", (long)lseek(file, 0, SEEK_CUR));
}

/* A pipe without a reader at work takes as much as it has room for. */
static void send_to_pipes(void)
{
    int file = memfd_create("file", 0), pipes[2][2];
    for (int i = 0; i < ALL; i++) bytes[i] = (char)(i * 7 + i / 256);
    write(file, bytes, ALL);
    lseek(file, 0, SEEK_SET);
    for (int i = 0; i < 2; i++) pipe2(pipes[i], O_NONBLOCK);
    told("sendfile", sendfile(pipes[0][1], file, NULL, ALL), file);
    told("to a full pipe", sendfile(pipes[0][1], file, NULL, ALL), file);
    printf("the same: %d\n", read(pipes[0][0], got, ALL) == PIPE && memcmp(got, bytes, PIPE) == 0);
    told("the rest", sendfile(pipes[0][1], file, NULL, ALL), file);
    printf("the same: %d\n", read(pipes[0][0], got, ALL) == ALL - PIPE && memcmp(got, bytes + PIPE, ALL - PIPE) == 0);
    off_t at = 4096;
    told("from a place", sendfile(pipes[1][1], file, &at, ALL), file);
    printf("next place: %ld\n", (long)at);
}

/* The memory of a process that has ended. */
static void access_what_has_ended(void)
{
    char path[32], word[8] = "";
    int ends[2];
    pipe(ends);
    pid_t child = fork();
    if (child == 0) _exit(read(ends[0], word, 1));
    snprintf(path, sizeof path, "/proc/%d/mem", child);
    int file = open(path, O_RDWR);
    write(ends[1], "", 1);
    waitpid(child, NULL, 0);
    printf("opened: %d\n", file >= 0);
    printf("read: %ld\n", (long)pread(file, word, sizeof word, (long)word));
    printf("written: %ld\n", (long)pwrite(file, word, sizeof word, (long)word));
}

static void list_to_nowhere(void)
{
    int directory = open("/proc/self/task", O_RDONLY | O_DIRECTORY);
    long failed = syscall(SYS_getdents64, directory, 16, sizeof got);
    printf("%ld (%s), then %d\n", failed, strerror(errno), syscall(SYS_getdents64, directory, got, sizeof got) > 0);
}

int main(void)
{
    send_to_pipes();
    access_what_has_ended();
    list_to_nowhere();
    return 0;
}
