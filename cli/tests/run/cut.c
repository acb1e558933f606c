// A process that waits in a long call gives up frames for its child: the call goes on, and its result is whole.

#define _GNU_SOURCE
#include "check.h"
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum { ROUNDS = 3, PAGES = 1500 };

static const long len = 500000;
static unsigned char *data, *heap;

// Reads slowly, and needs the memory that the parent has.
static void consume(int end, long all) {
    unsigned char room[4096];
    long done = 0, got;
    while ((got = read(end, room, sizeof room)) > 0) {
        for (long i = 0; i < got; i++)
            CHECK(room[i] == (unsigned char)((done + i) % len));
        done += got;
        for (long i = 0; i < 40; i++)
            heap[(done * 31 + i * 7) % PAGES * 4096]++;
    }
    CHECK(done == all);
    _exit(0);
}

static long transfer(const char *how, int end, int file) {
    struct iovec halves[2] = {{data, len / 2}, {data + len / 2, len - len / 2}};
    struct msghdr message = {.msg_iov = halves, .msg_iovlen = 2};
    off_t start = 0;
    if (!strcmp(how, "write"))
        return write(end, data, len);
    if (!strcmp(how, "writev"))
        return writev(end, halves, 2);
    if (!strcmp(how, "send"))
        return send(end, data, len, 0);
    if (!strcmp(how, "sendmsg"))
        return sendmsg(end, &message, 0);
    return sendfile(end, file, &start, len);
}

static void check(const char *how, int is_pipe) {
    int ends[2], status, file = memfd_create("file", 0);
    CHECK(write(file, data, len) == len);
    CHECK((is_pipe ? pipe(ends) : socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) == 0);
    int from = ends[0], to = ends[1];
    if (!fork()) {
        close(to);
        consume(from, ROUNDS * len);
    }
    close(from);
    int whole = 0;
    for (int round = 0; round < ROUNDS; round++) {
        for (long i = 0; i < PAGES; i++)
            heap[i * 4096]++;
        whole += transfer(how, to, file) == len;
    }
    close(to), close(file);
    CHECK(wait(&status) > 0);
    printf("%s, %s: %d whole, status %d\n", how, is_pipe ? "pipe" : "socket", whole, status);
    fflush(stdout);
}

int main(void) {
    data = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    heap = mmap(0, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(data != MAP_FAILED && heap != MAP_FAILED);
    for (long i = 0; i < len; i++)
        data[i] = i % len;
    check("write", 1);
    check("writev", 1);
    check("write", 0);
    check("writev", 0);
    check("send", 0);
    check("sendmsg", 0);
    check("sendfile", 0);
}
