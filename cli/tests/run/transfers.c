// Transfers of more pages than one call may keep resident, in one buffer and in many, and buffers that end
// beyond user space: each result is printed, and each byte that arrived is checked.

#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum { MOST = 1024 };

static const long len = 3 << 20;
static unsigned char *data;
static struct iovec vectors[MOST];
static long sum;

static void say(const char *what, long result) {
    printf("%s: %ld %s\n", what, result, result < 0 ? strerror(errno) : "");
    fflush(stdout);
}

static void fill(unsigned seed) {
    for (long i = 0; i < len; i++)
        data[i] = (unsigned char)((i * 2654435761u >> 11) + seed);
}

// Where the first of so many vectors begin, and how long each is.
static void spread(int count, long step, long offset, long each) {
    for (int i = 0; i < count; i++) {
        vectors[i].iov_base = data + offset + i * step;
        vectors[i].iov_len = each;
    }
}

// The content of the first vectors, as one number.
static unsigned long content(int count) {
    unsigned long hash = 5381;
    for (int i = 0; i < count; i++)
        for (size_t at = 0; at < vectors[i].iov_len; at++)
            hash = hash * 33 + ((unsigned char *)vectors[i].iov_base)[at];
    return hash;
}

static void to_a_file(void) {
    int file = memfd_create("file", 0);
    CHECK(file >= 0);
    fill(1);
    say("write", write(file, data, len));
    fill(2);
    say("pread", pread(file, data, len, 0));
    spread(1, 0, 0, len);
    printf("content %lx\n", content(1));
    spread(MOST, 3000, 0, 100);
    fill(3);
    say("pwritev", pwritev(file, vectors, MOST, 5));
    fill(4);
    say("preadv", preadv(file, vectors, MOST, 5));
    printf("content %lx\n", content(MOST));
    spread(700, 4096, 4090, 8);
    say("preadv, each in two pages", preadv(file, vectors, 700, 0));
    printf("content %lx\n", content(700));
    spread(MOST, 3000, 0, 1000);
    say("preadv, a long one", preadv(file, vectors, MOST, 0));
    printf("content %lx\n", content(MOST));

    fill(5);
    say("pread of too much", pread(file, data, 1L << 62, 0));
    say("pread of all", pread(file, data, -1L, 0));
    say("pwrite of too much", pwrite(file, data, 1L << 47, 0));
    vectors[0] = (struct iovec){data, len / 2};
    vectors[1] = (struct iovec){(void *)0x7ffffffff000, 4096};
    say("preadv beyond user space", preadv(file, vectors, 2, 0));
    say("pwritev beyond user space", pwritev(file, vectors, 2, 0));
    vectors[1] = (struct iovec){data, 1L << 62};
    say("preadv of too much", preadv(file, vectors, 2, 0));
    spread(1, 0, 0, len);
    printf("content %lx\n", content(1));
    close(file);
}

static void through_a_pipe(void) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    fill(6);
    spread(MOST, 3000, 0, 4);
    say("writev to a pipe", writev(ends[1], vectors, MOST));
    fill(7);
    say("readv from it", readv(ends[0], vectors, MOST));
    printf("content %lx\n", content(MOST));
    // Packets keep their bounds.
    CHECK(pipe2(ends, O_DIRECT) == 0);
    say("writev to a pipe of packets", writev(ends[1], vectors, MOST));
    CHECK(write(ends[1], "next", 4) == 4);
    say("readv from it", readv(ends[0], vectors, MOST));
    say("read from it", read(ends[0], data, len));
}

static void through_sockets(void) {
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    fill(8);
    say("send", send(ends[0], data, 100000, 0));
    say("receive all", recv(ends[1], data + 200000, 100000, MSG_WAITALL));
    CHECK(memcmp(data, data + 200000, 100000) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0);
    spread(MOST, 3000, 0, 40);
    unsigned long before = content(MOST);
    say("writev of a datagram", writev(ends[0], vectors, MOST));
    fill(9);
    say("readv of it", readv(ends[1], vectors, MOST));
    CHECK(content(MOST) == before);
}

// The kernel tells of each send once, however long it is, when it does not need the memory any more.
static void without_a_copy(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), socket_ = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    CHECK(!bind(listener, (void *)&address, size) && !listen(listener, 1));
    CHECK(!getsockname(listener, (void *)&address, &size) && !connect(socket_, (void *)&address, size));
    CHECK(!setsockopt(socket_, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on));
    fflush(stdout);
    pid_t reader = fork();
    if (!reader) {
        int end = accept(listener, NULL, NULL);
        char rest[4096];
        while (read(end, rest, sizeof rest) > 0) {
        }
        _exit(0);
    }
    fill(7);
    for (int i = 0; i < 3; i++) say("send without a copy", send(socket_, data, len / 2, MSG_ZEROCOPY));
    CHECK(!shutdown(socket_, SHUT_WR) && waitpid(reader, NULL, 0) == reader);
    int last = -1;
    for (struct pollfd told = {.fd = socket_}; poll(&told, 1, last < 2 ? 10000 : 0) > 0;) {
        char control[128];
        struct msghdr message = {.msg_control = control, .msg_controllen = sizeof control};
        if (recvmsg(socket_, &message, MSG_ERRQUEUE) < 0) break;
        struct sock_extended_err *told_of = (void *)CMSG_DATA(CMSG_FIRSTHDR(&message));
        if ((int)told_of->ee_data > last) last = told_of->ee_data;
    }
    say("the last that is told of", last);
    close(socket_);
    close(listener);
}

int main(void) {
    data = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(data != MAP_FAILED);
    to_a_file();
    through_a_pipe();
    through_sockets();
    without_a_copy();
    say("getrandom", getrandom(data, len, 0));
}
