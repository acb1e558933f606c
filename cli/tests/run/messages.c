// Messages of sockets in more pages than one call may keep resident: each result is printed, and each byte that
// arrived is checked.

#define _GNU_SOURCE
#include "check.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum { MANY = 40, ROOM = 65536, SCATTERED = 1024 };

static const long len = 3 << 20;
static unsigned char *data;
static volatile int pipes;

static void say(const char *what, long result) {
    printf("%s: %ld %s\n", what, result, result < 0 ? strerror(errno) : "");
    fflush(stdout);
}

static unsigned char byte_at(long i, unsigned seed) {
    return (unsigned char)((i * 2654435761u >> 11) + seed);
}

static void fill(unsigned seed) {
    for (long i = 0; i < len; i++)
        data[i] = byte_at(i, seed);
}

static long wrong(const unsigned char *bytes, long count, unsigned seed) {
    long sum = 0;
    for (long i = 0; i < count; i++)
        sum += bytes[i] != byte_at(i, seed);
    return sum;
}

// Two sockets, in which there is less room than a message needs, whatever a host gives by default.
static void pair(int kind, int ends[2]) {
    const int room = 200000;
    CHECK(socketpair(AF_UNIX, kind, 0, ends) == 0);
    for (int i = 0; i < 2; i++)
        CHECK(setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof room) == 0);
}

// Reads so many bytes of a stream and checks them.
static void take(int end, long count, unsigned seed) {
    long done = 0, got;
    unsigned char *room = malloc(ROOM);
    while (done < count && (got = read(end, room, count - done < ROOM ? count - done : ROOM)) > 0) {
        for (long i = 0; i < got; i++)
            CHECK(room[i] == byte_at(done + i, seed));
        done += got;
    }
    CHECK(done == count);
}

static int waited(void) {
    int status;
    CHECK(wait(&status) > 0);
    return status;
}

// A message of a stream: its descriptor comes once.
static void sent_whole(void) {
    int ends[2], got[4];
    union { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof(int))]; } control = {0};
    struct iovec halves[2] = {{data, len / 2}, {data + len / 2, len / 2}};
    struct msghdr message = {.msg_iov = halves, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof control};
    control.header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    pair(SOCK_STREAM, ends);
    fill(1);
    if (!fork()) {
        unsigned char first;
        char room[200];
        struct iovec one = {&first, 1};
        struct msghdr with = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
        say("first byte", recvmsg(ends[1], &with, 0));
        printf("control %zu, flags %d\n", with.msg_controllen, with.msg_flags);
        unsigned char *all = malloc(len);
        all[0] = first;
        long done = 1;
        while (done < len) {
            one = (struct iovec){all + done, 50000};
            with.msg_controllen = sizeof room;
            long count = recvmsg(ends[1], &with, 0);
            CHECK(count > 0 && with.msg_controllen == 0);
            done += count;
        }
        printf("all: %ld wrong\n", wrong(all, len, 1));
        fflush(stdout);
        _exit(0);
    }
    *(int *)CMSG_DATA(&control.header) = 0;
    long count = sendmsg(ends[0], &message, 0);
    // The last bytes wait in the socket when the call returns: the child's lines come first only if it is waited for.
    int status = waited();
    printf("sendmsg: %ld, status %d\n", count, status);
    close(ends[0]), close(ends[1]);
}

static void received_whole(void) {
    int ends[2];
    pair(SOCK_STREAM, ends);
    fill(2);
    if (!fork()) {
        CHECK(write(ends[0], data, len) == len);
        _exit(0);
    }
    memset(data, 0, len);
    struct iovec parts[3] = {{data, 100}, {data + 100, len / 2}, {data + 100 + len / 2, len / 2 - 100}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3, .msg_flags = -1};
    say("recvmsg of all", recvmsg(ends[1], &message, MSG_WAITALL));
    printf("flags %d, %ld wrong, status %d\n", message.msg_flags, wrong(data, len, 2), waited());
    close(ends[0]), close(ends[1]);
}

// Many datagrams, each with much room.
static void many(void) {
    int ends[2];
    static struct iovec parts[MANY];
    static struct mmsghdr messages[MANY];
    pair(SOCK_DGRAM, ends);
    for (int i = 0; i < MANY; i++) {
        parts[i] = (struct iovec){data + (long)i * ROOM, ROOM};
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[i], .msg_iovlen = 1}};
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 8; i++) {
            data[0] = i;
            CHECK(send(ends[0], data, 1000 * i + 1, 0) == 1000 * i + 1);
        }
        int flags = round == 0 ? MSG_DONTWAIT : MSG_WAITFORONE;
        struct timespec no_time = {0, 0};
        memset(data, 77, len);
        int count = recvmmsg(ends[1], messages, MANY, flags, round == 2 ? &no_time : 0);
        say("recvmmsg", count);
        for (int i = 0; i < count; i++)
            printf("%u bytes, first %d\n", messages[i].msg_len, data[(long)i * ROOM]);
        while (recv(ends[1], data, 1, MSG_DONTWAIT) > 0)
            ;
        say("recvmmsg", recvmmsg(ends[1], messages, MANY, MSG_DONTWAIT, 0));
    }
    fill(3);
    if (!fork()) {
        for (int i = 0; i < MANY; i++) {
            memset(data, 0, ROOM);
            CHECK(recv(ends[1], data, ROOM, 0) == ROOM);
            CHECK(data[5] == byte_at((long)i * ROOM + 5, 3));
        }
        _exit(0);
    }
    say("sendmmsg", sendmmsg(ends[0], messages, MANY, 0));
    printf("status %d\n", waited());
    close(ends[0]), close(ends[1]);
}

// A datagram of buffers in more pages than there may be.
static void scattered(void) {
    int ends[2];
    static struct iovec parts[SCATTERED];
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = SCATTERED};
    pair(SOCK_DGRAM, ends);
    for (int i = 0; i < SCATTERED; i++)
        parts[i] = (struct iovec){data + i * 3000, 40};
    fill(4);
    say("sendmsg of a datagram", sendmsg(ends[0], &message, 0));
    memset(data, 0, len);
    message.msg_flags = -1;
    say("recvmsg of it", recvmsg(ends[1], &message, 0));
    long sum = 0;
    for (int i = 0; i < SCATTERED; i++)
        for (int at = 0; at < 40; at++)
            sum += data[i * 3000 + at] != byte_at(i * 3000 + at, 4);
    printf("%ld wrong, flags %d\n", sum, message.msg_flags);
    CHECK(send(ends[0], data, 60000, 0) == 60000);
    say("recvmsg of a part", recvmsg(ends[1], &message, MSG_TRUNC));
    printf("flags %d\n", message.msg_flags);
    close(ends[0]), close(ends[1]);
}

static void on_pipe(int signal) {
    pipes++;
}

// The reader goes before all is written: a part is the result, and no signal comes.
static void cut_off(const char *how) {
    int ends[2];
    struct iovec halves[2] = {{data, len / 2}, {data + len / 2, len / 2}};
    struct msghdr message = {.msg_iov = halves, .msg_iovlen = 2};
    pair(SOCK_STREAM, ends);
    fill(5);
    if (!fork()) {
        close(ends[0]);
        take(ends[1], 1000000, 5);
        _exit(0);
    }
    close(ends[1]);
    pipes = 0;
    long count = !strcmp(how, "write") ? write(ends[0], data, len)
        : !strcmp(how, "writev")       ? writev(ends[0], halves, 2)
        : !strcmp(how, "send")         ? send(ends[0], data, len, 0)
                                       : sendmsg(ends[0], &message, 0);
    printf("%s: %s, %d signals, status %d\n", how, count >= 1000000 && count < len ? "a part" : "?", pipes, waited());
    say("again", write(ends[0], data, len));
    printf("%d signals\n", pipes);
    fflush(stdout);
    close(ends[0]);
}

int main(void) {
    data = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(data != MAP_FAILED);
    signal(SIGPIPE, on_pipe);
    sent_whole();
    received_whole();
    many();
    scattered();
    cut_off("write");
    cut_off("writev");
    cut_off("send");
    cut_off("sendmsg");
}
