/* What a debugger reads and writes is the tracee's memory, evicted or not: of a child that asks to be traced, of a
 * busy one that is attached to, of one that its tracer gets by a fork, and of one that nobody traces. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 2048, STEP = 32 };

static char *memory, *constants, *hidden, *more;
static int *shared;

static uint64_t word(long at) { return at * 0x9e3779b97f4a7c15u | 1; }

static void *map(size_t len) {
    void *start = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) abort();
    return start;
}

static void fill(void) {
    for (long at = 0; at < PAGES * PAGE; at += 8) *(uint64_t *)(memory + at) = word(at);
    for (long at = 0; at < 8 * PAGE; at += 8) *(uint64_t *)(constants + at) = *(uint64_t *)(hidden + at) = word(at);
    mprotect(constants, 8 * PAGE, PROT_READ);
    mprotect(hidden, 8 * PAGE, PROT_NONE);
}

static void use_more(void) { for (int i = 0; i < PAGES; i++) more[i * PAGE] = i; }

/* The bytes that the tracer has changed. */
static int changed(void) {
    int found = 0;
    mprotect(hidden, 8 * PAGE, PROT_READ);
    for (long at = 0; at < PAGES * PAGE; at++) found += memory[at] != (char)(word(at & ~7) >> at % 8 * 8);
    for (long at = 0; at < 8 * PAGE; at++) found += constants[at] != (char)(word(at & ~7) >> at % 8 * 8);
    for (long at = 0; at < 8 * PAGE; at++) found += hidden[at] != (char)(word(at & ~7) >> at % 8 * 8);
    return found;
}

static void by_words(pid_t tracee) {
    int peeked = 0, cut = 0, poked = 0;
    for (int i = 0; i < PAGES; i += STEP) {
        errno = 0;
        peeked += ptrace(PTRACE_PEEKDATA, tracee, memory + i * PAGE + 8, 0) == (long)word(i * PAGE + 8) && !errno;
        long at = (long)(i + 1) * PAGE - 3;
        uint64_t expected = word(at & ~7) >> 40 | word((i + 1) * PAGE) << 24;
        if (i + 1 < PAGES) cut += ptrace(PTRACE_PEEKTEXT, tracee, memory + at, 0) == (long)expected;
        poked += ptrace(PTRACE_POKEDATA, tracee, memory + i * PAGE + 16, 0x6b6b6b6b6b6b6b6b) == 0;
        if (i + 2 < PAGES) poked += ptrace(PTRACE_POKETEXT, tracee, memory + at + PAGE, 0x6c6c6c6c6c6c6c6c) == 0;
    }
    printf("peeked %d and %d, poked %d\n", peeked, cut, poked);
    errno = 0;
    printf("constants: %d", ptrace(PTRACE_PEEKDATA, tracee, constants + PAGE, 0) == (long)word(PAGE));
    printf(", %ld", ptrace(PTRACE_POKEDATA, tracee, constants + 2 * PAGE, 0x6d6d6d6d6d6d6d6d));
    printf("; hidden: %d", ptrace(PTRACE_PEEKDATA, tracee, hidden + PAGE, 0) == (long)word(PAGE));
    printf(", %ld", ptrace(PTRACE_POKEDATA, tracee, hidden + 2 * PAGE, 0x6e6e6e6e6e6e6e6e));
    printf("; nothing: %ld", ptrace(PTRACE_POKEDATA, tracee, 64, 1)), printf(", error %d\n", errno);
}

static void by_file(pid_t tracee) {
    char name[32], *bytes = malloc(PAGES * PAGE);
    snprintf(name, sizeof name, "/proc/%d/mem", tracee);
    int file = open(name, O_RDWR);
    printf("%zd of the file", pread(file, bytes, PAGES * PAGE, (off_t)memory));
    printf(", %d with a poke", memcmp(bytes + 16, "kkkkkkkk", 8) == 0 || memcmp(bytes + 16, memory + 16, 8) == 0);
    printf(", %zd across", pread(file, bytes, 100, (off_t)memory + 77 * PAGE - 50));
    printf(", %d equal", memcmp(bytes, memory + 77 * PAGE - 50, 100) == 0);
    printf("; %zd written", pwrite(file, "from outside", 12, (off_t)memory + 99 * PAGE - 5));
    printf(", %zd to constants", pwrite(file, "constant", 8, (off_t)constants + 3 * PAGE - 4));
    printf(", %zd to nothing", pwrite(file, "nothing", 7, 64)), printf(", error %d\n", errno);
    close(file);
    free(bytes);
}

static void by_vectors(pid_t tracee) {
    char *bytes = malloc(PAGES * PAGE);
    struct iovec here = { bytes, PAGES * PAGE }, there[] = { { memory, 5 }, { memory + 999 * PAGE, PAGE + 9 }, { memory + 60 * PAGE + 1, 900 * PAGE } };
    printf("%zd read", process_vm_readv(tracee, &here, 1, there, 3, 0));
    printf(", %d equal", memcmp(bytes + 5, memory + 999 * PAGE, 8) == 0);
    there[1].iov_base = hidden + 4 * PAGE;
    printf("; %zd before hidden", process_vm_readv(tracee, &here, 1, there, 3, 0)), printf(", %zd", process_vm_readv(tracee, &here, 1, there + 1, 1, 0)), printf(" error %d", errno);
    memset(bytes, 'v', PAGE);
    struct iovec parts[] = { { bytes, 7 }, { bytes, 0 }, { bytes, 80 } }, to[] = { { memory + 1000 * PAGE - 4, 50 }, { memory + 1700 * PAGE + 1, 37 } };
    printf("; %zd written", process_vm_writev(tracee, parts, 3, to, 2, 0));
    to[1].iov_base = constants + 9;
    printf(", %zd before constants\n", process_vm_writev(tracee, parts, 3, to, 2, 0));
    free(bytes);
}

static void all(pid_t tracee) { by_words(tracee), by_file(tracee), by_vectors(tracee); }

static void wait_for_stop(pid_t tracee, int signal) {
    int status;
    if (waitpid(tracee, &status, __WALL) != tracee || !WIFSTOPPED(status) || WSTOPSIG(status) != signal) printf("not stopped: %x\n", status), exit(1);
}

static void end(pid_t tracee) {
    int status;
    waitpid(tracee, &status, __WALL);
    printf("ended: %x\n\n", status);
}

static int asks(void) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    fill(), use_more(), raise(SIGSTOP);
    return changed() % 251;
}

static void *work(void *unused) {
    while (!*(volatile int *)shared) use_more();
    return NULL;
}

static int is_attached_to(void) {
    pthread_t thread;
    fill(), use_more();
    if (pthread_create(&thread, NULL, work, NULL)) abort();
    shared[1] = 1;
    work(NULL);
    pthread_join(thread, NULL);
    return changed() % 251;
}

static pid_t begin(int (*child)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) _exit(child());
    return pid;
}

static int forks(void) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    fill(), use_more(), raise(SIGSTOP);
    pid_t pid = fork();
    use_more();
    if (pid == 0) raise(SIGSTOP), _exit(changed() % 251);
    int status;
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
}

int main(void) {
    memory = map(PAGES * PAGE), constants = map(8 * PAGE), hidden = map(8 * PAGE), more = map(PAGES * PAGE);
    shared = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (long at = 0; at < PAGES * PAGE; at += 8) *(uint64_t *)(memory + at) = word(at);

    pid_t pid = begin(asks);
    wait_for_stop(pid, SIGSTOP), all(pid), ptrace(PTRACE_CONT, pid, 0, 0), end(pid);

    pid = begin(is_attached_to);
    while (!*(volatile int *)(shared + 1)) usleep(1000);
    if (ptrace(PTRACE_ATTACH, pid, 0, 0)) perror("attach");
    wait_for_stop(pid, SIGSTOP), all(pid), *shared = 1, ptrace(PTRACE_DETACH, pid, 0, 0), end(pid);

    pid = begin(forks);
    unsigned long child;
    wait_for_stop(pid, SIGSTOP), ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEFORK), ptrace(PTRACE_CONT, pid, 0, 0);
    wait_for_stop(pid, SIGTRAP), ptrace(PTRACE_GETEVENTMSG, pid, 0, &child), ptrace(PTRACE_CONT, pid, 0, 0);
    wait_for_stop(child, SIGSTOP), ptrace(PTRACE_CONT, child, 0, 0), wait_for_stop(child, SIGSTOP);
    all(child), ptrace(PTRACE_CONT, child, 0, 0), end(child);
    wait_for_stop(pid, SIGCHLD), ptrace(PTRACE_CONT, pid, 0, SIGCHLD), end(pid);

    shared[0] = shared[1] = 0;
    pid = begin(is_attached_to);
    while (!*(volatile int *)(shared + 1)) usleep(1000);
    by_file(pid), by_vectors(pid), *shared = 1, end(pid);
    return 0;
}
