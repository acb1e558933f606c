// Calls that move bytes, wait, compare or pass descriptors on find none open that the program has not opened.

#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <signal.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define END 4096

// Prints the numbers from the program's own on for which a call fails with anything but EBADF.
#define EACH(call)                                   \
    for (int n = own; n < END; n++) {                \
        errno = 0;                                   \
        if ((long)(call) != -1 || errno != EBADF)    \
            printf("%s: %d\n", #call, n);            \
    }

static int polled(int n) {
    struct pollfd fds[2] = {{.fd = n, .events = POLLIN, .revents = 77}, {.fd = -1, .revents = 77}};
    int ready = poll(fds, 2, 0);
    return ready == 1 && fds[0].fd == n && fds[0].revents == POLLNVAL && fds[1].revents == 0;
}

static int polled_with_mask(int n) {
    struct pollfd fd = {.fd = n, .events = POLLIN};
    struct timespec now = {0};
    sigset_t mask;
    sigemptyset(&mask);
    return ppoll(&fd, 1, &now, &mask) == 1 && fd.revents == POLLNVAL;
}

// One message, or several of which the last brings the descriptor.
static long sent(int socket, int messages, int n) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(3 * sizeof(int))];
    } control = {.header = {CMSG_LEN(3 * sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.header), (int[]){0, n, 0}, 3 * sizeof(int));
    struct iovec byte = {"x", 1};
    struct msghdr with = {.msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct mmsghdr all[3] = {{{.msg_iov = &byte, .msg_iovlen = 1}}, {{.msg_iov = &byte, .msg_iovlen = 1}}};
    all[messages - 1].msg_hdr = with;
    return messages == 1 ? sendmsg(socket, &with, MSG_DONTWAIT) : sendmmsg(socket, all, messages, MSG_DONTWAIT);
}

static long compared(int first, int second) {
    return syscall(SYS_kcmp, getpid(), getpid(), 0, (long)first, (long)second);
}

// A child's, which it has beside its parent's.
static int of_child(int n) {
    static pid_t child;
    if (!child && !(child = fork())) {
        pause();
        _exit(0);
    }
    if (n < 0)
        return kill(child, SIGKILL) || waitpid(child, NULL, 0) != child;
    return syscall(SYS_kcmp, getpid(), child, 0, 0L, (long)n);
}

// Numbers behind the end of the table of descriptors, which are ignored.
static void select_up_to(int count) {
    static fd_set sets[8];
    for (int n = 64; n < count; n++)
        ((long *)sets)[n / 64] |= 1L << n % 64;
    struct timeval now = {0};
    struct timespec none = {0};
    errno = 0;
    long ready = syscall(SYS_select, count, sets, NULL, NULL, &now);
    printf("select of %d: %ld (%d)\n", count, ready, errno);
    CHECK(dup2(1, count - 2) == count - 2);
    errno = 0;
    ready = syscall(SYS_pselect6, count, sets, NULL, NULL, &none, NULL);
    printf("with one more: %ld (%d)\n", ready, errno);
}

int main(void) {
    int epoll = epoll_create1(0), null = open("/dev/null", O_RDWR), pipes[2];
    CHECK(epoll >= 0 && null >= 0 && !pipe(pipes));
    int own = pipes[1] + 1;
    CHECK(!close_range(own, ~0u, 0));
    struct epoll_event event = {.events = EPOLLIN};

    EACH(lseek(n, 0, SEEK_CUR))
    EACH(epoll_ctl(epoll, EPOLL_CTL_ADD, n, &event))
    EACH(sendfile(null, n, NULL, 1))
    EACH(copy_file_range(null, NULL, n, NULL, 1, 0))
    EACH(splice(pipes[0], NULL, n, NULL, 1, SPLICE_F_NONBLOCK))
    EACH(mmap(NULL, 4096, PROT_READ, MAP_SHARED, n, 0))

    int sockets[2], self = syscall(SYS_pidfd_open, getpid(), 0);
    CHECK(self >= 0 && !socketpair(AF_UNIX, SOCK_DGRAM, 0, sockets));
    own = sockets[1] + 1;
    EACH(sent(sockets[0], 1, n))
    EACH(compared(0, n))
    EACH(compared(n, 0))
    EACH(of_child(n))
    CHECK(!of_child(-1));
    EACH(syscall(SYS_pidfd_getfd, self, n, 0))
    EACH(fcntl(0, 1027, n))
    for (int n = own; n < END; n++)
        if (!polled(n) || !polled_with_mask(n))
            printf("poll: %d\n", n);
    for (int n = END - 80; n < END; n++) {
        char byte;
        CHECK(sent(sockets[0], 3, n) == 2);
        CHECK(recv(sockets[1], &byte, 1, 0) == 1 && recv(sockets[1], &byte, 1, 0) == 1);
        CHECK(recv(sockets[1], &byte, 1, MSG_DONTWAIT) == -1);
    }
    for (int count = 1024; count <= END; count *= 2) {
        fflush(stdout);
        pid_t child = fork();
        if (!child) {
            select_up_to(count);
            exit(0);
        }
        CHECK(waitpid(child, NULL, 0) == child);
    }

    // Structures that name one.
    char range[32] = {0}, rule[12] = {4}, attributes[32] = {0, 0, 0x10};
    int file = memfd_create("file", 0);
    CHECK(file != -1);
    *(long *)(attributes + 24) = 0;
    long rights[2] = {1 << 2};
    int rules = syscall(444, rights, 8L, 0L);
    own = file > rules ? file + 1 : rules + 1;
    EACH((*(long *)range = n, ioctl(file, 0x4020940d, range)));
    if (rules != -1)
        EACH((*(int *)(rule + 8) = n, syscall(445, rules, 1L, rule, 0L)));
    EACH((*(long *)(attributes + 24) = n, syscall(SYS_mount_setattr, -100, "/", 0L, attributes, 32L)));

    // These take any number.
    for (int n = own; n < END; n++) {
        void *memory = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, n, 0);
        CHECK(memory != MAP_FAILED && !munmap(memory, 4096));
        CHECK(dup2(null, n) == n && !close(n));
    }
    puts("done");
    return 0;
}
