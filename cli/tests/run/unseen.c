// Calls that move bytes, map files or add to an epoll instance find no descriptor open that the program has not opened.

#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#define END 4096

// Prints the numbers from the program's own on for which a call fails with anything but EBADF.
#define EACH(call)                                   \
    for (int n = own; n < END; n++) {                \
        errno = 0;                                   \
        if ((long)(call) != -1 || errno != EBADF)    \
            printf("%s: %d\n", #call, n);            \
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

    // These take any number.
    for (int n = own; n < END; n++) {
        void *memory = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, n, 0);
        CHECK(memory != MAP_FAILED && !munmap(memory, 4096));
        CHECK(dup2(null, n) == n && !close(n));
    }
    puts("done");
    return 0;
}
