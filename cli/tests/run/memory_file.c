// The memory of a process as a file, with one buffer and with several: pages that have left come back for it.

#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 6144, PAGE = 4096 };
static char *memory;

static void fill(void)
{
    for (long i = 0; i < PAGES; i++) *(long *)(memory + i * PAGE) = i;
}

static void access_all(const char *whose, int file)
{
    int wrong[6] = {0};
    for (long i = 0; i < PAGES; i += 97) {
        off_t at = (off_t)(memory + i * PAGE);
        char head[3], tail[5];
        long word = -1, joined;
        struct iovec one = {&word, 8}, two[] = {{head, 3}, {tail, 5}};
        wrong[0] += pread(file, &word, 8, at) != 8 || word != i;
        word = -1;
        wrong[1] += preadv(file, &one, 1, at) != 8 || word != i;
        lseek(file, at, SEEK_SET);
        wrong[2] += readv(file, two, 2) != 8 || lseek(file, 0, SEEK_CUR) != at + 8;
        memcpy(&joined, head, 3);
        memcpy((char *)&joined + 3, tail, 5);
        wrong[3] += joined != i;
        wrong[4] += pwritev(file, two, 2, at) != 8;
        lseek(file, at, SEEK_SET);
        wrong[5] += writev(file, two, 2) != 8 || lseek(file, 0, SEEK_CUR) != at + 8;
    }
    printf("%s: %d %d %d %d %d %d\n", whose, wrong[0], wrong[1], wrong[2], wrong[3], wrong[4], wrong[5]);
    // Two pages, the second of which is a hole.
    char both[16];
    struct iovec over[] = {{both, 8}, {both + 8, 8}};
    off_t end = (off_t)(memory + PAGES * PAGE);
    printf("over the end: %zd, past it: %zd\n", preadv(file, over, 2, end - 8), preadv(file, over, 2, end));
    fflush(stdout);
}

int main(void)
{
    memory = mmap(NULL, (PAGES + 1) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(memory + PAGES * PAGE, PAGE);
    fill();
    access_all("own", open("/proc/self/mem", O_RDWR));
    int ready[2];
    CHECK(pipe(ready) == 0);
    pid_t child = fork();
    if (child == 0) {
        fill();
        if (write(ready[1], "", 1) != 1) _exit(1);
        pause();
    }
    char byte, path[32];
    CHECK(read(ready[0], &byte, 1) == 1);
    snprintf(path, sizeof path, "/proc/%d/mem", child);
    access_all("a child's", open(path, O_RDWR));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return 0;
}
