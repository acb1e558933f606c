/* The descriptors that a program can find are its own: in lists, by number, and in programs that it
 * starts. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The numbers that a directory lists, without those below 3 and its own. */
static void list(const char *path)
{
    DIR *directory = opendir(path);
    if (!directory) {
        printf("%s: %s\n", path, strerrorname_np(errno));
        return;
    }
    printf("%s:", strrchr(path, '/'));
    struct dirent *entry;
    int sum = 0;
    while ((entry = readdir(directory))) {
        int number = atoi(entry->d_name);
        if (number > 2 && number != dirfd(directory))
            printf(" %d", number);
        sum++;
    }
    printf(" (%d entries)\n", sum);
    closedir(directory);
}

/* The same with room for one entry at a time. */
static void list_slowly(void)
{
    char entry[32];
    int entries = 0, directory = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
    while (syscall(SYS_getdents64, directory, entry, sizeof entry) > 0)
        entries++;
    printf("one at a time: %d\n", entries);
    close(directory);
}

static void all_lists(void)
{
    char path[64];
    list("/proc/self/fd");
    list("/proc/self/fdinfo");
    list("/dev/fd");
    sprintf(path, "/proc/%d/task/%d/fd", getpid(), getpid());
    list(path);
    list_slowly();
}

/* How many numbers name something. */
static int open_numbers(int limit)
{
    int open = 0;
    struct stat stat;
    for (int number = 3; number < limit; number++)
        open += fcntl(number, F_GETFD) != -1 || fstat(number, &stat) == 0 || lseek(number, 0, SEEK_CUR) != -1;
    return open;
}

/* How many numbers are open more after calls that fail. */
static int taken(int open, int limit)
{
    int closed = dup(open), before;
    close(closed);
    before = open_numbers(limit);
    for (int number = 3; number < limit; number++) {
        dup2(closed, number);
        dup3(open, number, O_APPEND);
    }
    return open_numbers(limit) - before;
}

int main(int count, char **arguments)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    int top = limit.rlim_cur < 65536 ? limit.rlim_cur : 65536;
    printf("open: %d\n", open_numbers(top));
    all_lists();
    if (count > 1)
        return 0;
    size_t len = 32 << 20;
    char *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(memory, 5, len);
    int null = open("/dev/null", O_RDONLY);
    limit.rlim_cur = limit.rlim_max < 6000 ? limit.rlim_max : 6000;
    if (limit.rlim_cur > top)
        setrlimit(RLIMIT_NOFILE, &limit);
    printf("taken %d\n", taken(null, limit.rlim_cur));
    /* Every number can be had, and given up. */
    int refused = 0, failed = 0;
    for (int number = 3; number < top; number++) {
        refused += dup2(null, number) != number;
        if (number != null)
            failed += close(number) != 0;
    }
    printf("refused %d, failed %d\n", refused, failed);
    int others = 0;
    setrlimit(RLIMIT_NOFILE, &limit);
    top = limit.rlim_cur;
    for (int number = 3; number < top; number++) {
        int got = fcntl(null, number & 1 ? F_DUPFD : F_DUPFD_CLOEXEC, number);
        others += got != number;
        close(got);
    }
    /* One is that of the open file. */
    printf("others %d\n", others);
    /* What daemons do to what they may have inherited. */
    for (int number = 3; number < top; number++)
        fcntl(number, F_SETFD, 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        char path[64];
        sprintf(path, "/proc/%d/fd", getppid());
        list(path);
        fflush(stdout);
        execl("/proc/self/exe", "listing", "child", NULL);
    }
    waitpid(child, NULL, 0);
    /* Another process's list has what lies above its limit of now. */
    int ready[2];
    pipe(ready);
    child = fork();
    if (child == 0) {
        struct rlimit few = {20, limit.rlim_max};
        dup2(ready[1], 50);
        setrlimit(RLIMIT_NOFILE, &few);
        write(50, "x", 1);
        pause();
    }
    char byte, path[64];
    read(ready[0], &byte, 1);
    sprintf(path, "/proc/%d/fd", child);
    list(path);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    size_t wrong = 0;
    for (size_t at = 0; at < len; at++)
        wrong += memory[at] != 5;
    printf("wrong %zu\n", wrong);
    return 0;
}
