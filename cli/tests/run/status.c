// What /proc tells of a process's signals and filters of calls, read in every way.

#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>

static const char *LINES[] = {"SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "Seccomp", "Seccomp_filters"};

static void print(const char *title, char *text) {
    printf("%s\n", title);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        for (int i = 0; i < 7; i++) {
            size_t len = strlen(LINES[i]);
            if (!strncmp(line, LINES[i], len) && line[len] == ':') printf("  %s\n", line);
        }
}

/* Reads a file in pieces of this size: by one buffer, by two, or from its end to its beginning. */
enum manner { ONE, TWO, BACKWARDS };
static void show(const char *title, int file, size_t piece, enum manner manner) {
    char text[8192];
    size_t len = 0;
    ssize_t got;
    CHECK(file >= 0);
    if (manner == BACKWARDS) {
        while (pread(file, text, 1, len) == 1) len++;
        memset(text, 0, len);
        for (ssize_t at = len - piece; at > -(ssize_t)piece; at -= piece) {
            size_t start = at < 0 ? 0 : at;
            CHECK(pread(file, text + start, piece, start) > 0);
        }
    } else {
        struct iovec parts[2];
        do {
            parts[0] = (struct iovec){text + len, piece / 2};
            parts[1] = (struct iovec){text + len + piece / 2, piece - piece / 2};
            got = manner == TWO ? readv(file, parts, 2) : read(file, text + len, piece);
            CHECK(got >= 0);
            len += got;
        } while (got > 0);
    }
    text[len] = 0;
    close(file);
    print(title, text);
}

static void show_self(const char *title) {
    show(title, open("/proc/self/status", O_RDONLY), 4096, ONE);
}

static void handler(int signal) {}

static void *thread(void *unused) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGSEGV);
    sigaddset(&set, SIGWINCH);
    pthread_sigmask(SIG_SETMASK, &set, NULL);
    show("a thread", open("/proc/thread-self/status", O_RDONLY), 1024, ONE);
    return NULL;
}

static void filter(void) {
    struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {1, code};
    CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

/* A child that says when it is ready, and waits. */
static pid_t child(int pipe_end, void (*prepare)(void)) {
    pid_t pid = fork();
    if (pid) return pid;
    prepare();
    CHECK(write(pipe_end, "", 1) == 1);
    for (;;) pause();
}

static void other_handlers(void) {
    signal(SIGSEGV, SIG_DFL);
    signal(SIGHUP, handler);
    signal(SIGQUIT, SIG_IGN);
}

static void stay(void) {}

static void show_other(pid_t pid, const char *title) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    // By one read: the file changes with the state of the process.
    char text[8192] = "";
    int file = open(path, O_RDONLY);
    CHECK(file >= 0 && read(file, text, sizeof text - 1) > 0);
    close(file);
    // Of another process's mask the host alone tells.
    memset(strstr(text, "SigBlk"), '-', 6);
    print(title, text);
}

int main(int count, char **arguments) {
    if (count > 1) {
        show_self("executed");
        show("from its parent", 0, 4096, ONE);
        return 0;
    }
    char *memory = mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(memory, 1, 16 << 20);
    show_self("at the start");

    signal(SIGUSR1, handler);
    signal(SIGSEGV, handler);
    signal(SIGSYS, handler);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGBUS, SIG_IGN);
    struct sigaction once = {.sa_handler = handler, .sa_flags = SA_RESETHAND};
    sigaction(SIGTERM, &once, NULL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGSYS);
    sigaddset(&set, SIGBUS);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR2);
    show_self("with handlers");
    raise(SIGTERM);
    show("without one of them", open("/proc/self/status", O_RDONLY), 1, ONE);
    show("in pieces", open("/proc/self/status", O_RDONLY), 100, ONE);
    show("in two buffers", open("/proc/self/status", O_RDONLY), 1000, TWO);
    show("backwards", open("/proc/self/status", O_RDONLY), 37, BACKWARDS);

    pthread_t other;
    CHECK(!pthread_create(&other, NULL, thread, NULL));
    pthread_join(other, NULL);

    int ready[2];
    char byte;
    CHECK(!pipe(ready));
    pid_t first = child(ready[1], other_handlers), second = child(ready[1], stay);
    CHECK(read(ready[0], &byte, 1) == 1 && read(ready[0], &byte, 1) == 1);
    show_other(first, "a child with other handlers");
    show_other(second, "a child with its parent's");
    CHECK(!kill(first, SIGKILL) && !kill(second, SIGKILL));
    while (wait(NULL) > 0);

    fflush(stdout);
    if (!fork()) {
        dup2(open("/proc/self/status", O_RDONLY), 0);
        execl(arguments[0], arguments[0], "executed", NULL);
        _exit(1);
    }
    wait(NULL);

    filter();
    filter();
    show_self("with filters");
    // A file of another kind under a number that a status file had.
    int file = open("/proc/self/status", O_RDONLY), number = file;
    CHECK(read(file, memory, 6) == 6);
    close(file);
    file = open("/proc/version", O_RDONLY);
    CHECK(file == number && read(file, memory, 64) > 0 && !strncmp(memory, "Linux", 5));
    return 0;
}
