/* Buffers of which only the beginning may be used: calls move what there is, and say how much. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { P = 4096 };

static void say(const char *what, long n) { n < 0 ? printf("%s: %s", what, strerrorname_np(errno)) : printf("%s: %ld", what, n); }

static char *edge; /* The byte after the last one that may be used. */

static void at(int fd) { printf(", at %ld\n", (long)lseek(fd, 0, SEEK_CUR)); }

int main(void) {
    char *p = mmap(0, 4 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), data[3 * P];
    munmap(p + 2 * P, 2 * P);
    edge = p + 2 * P;
    memset(data, 7, sizeof data);
    int file = memfd_create("file", 0);
    pwrite(file, data, sizeof data, 0);

    static const int sizes[] = { 1, 100, P, P + 1, 2 * P };
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int n = sizes[i];
        memset(p, 0, 2 * P);
        lseek(file, 5, SEEK_SET);
        printf("%d: ", n);
        say("read", read(file, edge - n, 3 * P)), printf(" %d", edge[-1]), at(file);
        lseek(file, 5, SEEK_SET);
        say("write", write(file, edge - n, 3 * P)), at(file);
        say("pread", pread(file, edge - n, 3 * P, 9)), say(" pwrite", pwrite(file, edge - n, 3 * P, 9)), puts("");
        struct iovec two[2] = { { data, 50 }, { edge - n, n + 100 } }, back[2] = { { edge - n, n + 100 }, { data, 50 } };
        lseek(file, 0, SEEK_SET);
        say("readv", readv(file, two, 2)), at(file);
        lseek(file, 0, SEEK_SET);
        say("readv the other way", readv(file, back, 2)), at(file);
        lseek(file, 0, SEEK_SET);
        say("writev", writev(file, two, 2)), at(file);
        lseek(file, 0, SEEK_SET);
        say("writev the other way", writev(file, back, 2)), at(file);
        int zero = open("/dev/zero", O_RDWR);
        say("zeros", read(zero, edge - n, 3 * P)), say(" given away", write(zero, edge - n, 3 * P)), puts("");
        close(zero);
        int fd = open("/proc/self/maps", O_RDONLY);
        if (n <= 100) say("text", read(fd, edge - n, 3 * P)), at(fd);
        close(fd);
    }
    say("read nowhere", read(file, edge, 10)), at(file);
    say("write from nowhere", write(file, edge, 10)), at(file);
    say("read nothing nowhere", read(file, edge, 0)), puts("");
    say("read beyond addresses", read(file, (void *)-8192ul, 10)), puts("");
    say("read a negative number", read(file, p, -1)), puts("");
    struct iovec negative[2] = { { data, 10 }, { p, -1ul } }, beyond[2] = { { data, 10 }, { (void *)-8192ul, 10 } };
    say("readv a negative number", readv(file, negative, 2)), puts("");
    say("readv beyond addresses", readv(file, beyond, 2)), puts("");
    say("readv a bad list", readv(file, (void *)edge, 2)), puts("");
    say("readv too many", readv(file, negative, 2000)), puts("");

    /* Memory that may not be written is as good as none. */
    mprotect(p + P, P, PROT_READ);
    lseek(file, 0, SEEK_SET);
    say("read onto a page to read", read(file, p + P - 10, 100)), at(file);
    mprotect(p + P, P, PROT_NONE);
    lseek(file, 0, SEEK_SET);
    say("read onto a forbidden page", read(file, p, 2 * P)), at(file);
    say("write from a forbidden page", write(file, p + 5, 2 * P)), at(file);

    /* What cannot be delivered stays in a pipe; what was not taken whole is not in it. */
    int ends[2];
    pipe(ends);
    write(ends[1], "0123456789", 10);
    say("pipe, read", read(ends[0], p + P - 4, 10)), puts("");
    say("pipe, then", read(ends[0], data, 100)), printf(" %.10s\n", data);
    say("pipe, write", write(ends[1], p + P - 4, 10)), puts("");
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    say("pipe, then", read(ends[0], data, 100)), puts("");
}
