// Memory that several processes share (CLONE_VM), and threads by their IDs: a copy between processes, a
// process's memory file and a limit name either of them, and mean this memory.

#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum { PAGE = 4096, PAGES = 2048 };

static char *data;
static volatile pid_t other;
static sem_t over;

static void fill(void) {
    for (long i = 0; i < PAGES; i++)
        *(long *)(data + i * PAGE + 64) = i;
}

// Most pages are absent: more memory was used since than there is.
static void press(void) {
    char *more = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(more != MAP_FAILED);
    memset(more, 1, PAGES * PAGE);
    CHECK(munmap(more, PAGES * PAGE) == 0);
}

static void copy_by(pid_t id) {
    char *local = malloc(PAGES * PAGE);
    fill();
    press();
    struct iovec here = {local, PAGES * PAGE}, there = {data, PAGES * PAGE};
    CHECK(process_vm_readv(id, &here, 1, &there, 1, 0) == PAGES * PAGE);
    for (long i = 0; i < PAGES; i++) {
        CHECK(*(long *)(local + i * PAGE + 64) == i);
        *(long *)(local + i * PAGE + 64) = 3 * i;
    }
    press();
    CHECK(process_vm_writev(id, &here, 1, &there, 1, 0) == PAGES * PAGE);
    press();
    for (long i = 0; i < PAGES; i++)
        CHECK(*(long *)(data + i * PAGE + 64) == 3 * i);
    // Until a hole, and not at all from there on.
    CHECK(munmap(data + 8 * PAGE, PAGE) == 0);
    CHECK(process_vm_readv(id, &here, 1, &there, 1, 0) == 8 * PAGE);
    there.iov_base = data + 8 * PAGE;
    CHECK(process_vm_readv(id, &here, 1, &there, 1, 0) == -1 && errno == EFAULT);
    CHECK(mmap(data + 8 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
          == data + 8 * PAGE);
    free(local);
}

static void file_of(pid_t id) {
    char path[64];
    sprintf(path, "/proc/%d/mem", id);
    int file = open(path, O_RDWR);
    CHECK(file >= 0);
    fill();
    press();
    char *local = malloc(PAGES * PAGE);
    long done = 0;
    while (done < PAGES * PAGE) {
        ssize_t got = pread(file, local + done, PAGES * PAGE - done, (off_t)data + done);
        CHECK(got > 0);
        done += got;
    }
    for (long i = 0; i < PAGES; i++)
        CHECK(*(long *)(local + i * PAGE + 64) == i);
    long value = 77;
    for (long i = 0; i < PAGES; i += 100)
        CHECK(pwrite(file, &value, sizeof value, (off_t)data + i * PAGE) == sizeof value);
    press();
    for (long i = 0; i < PAGES; i += 100)
        CHECK(*(long *)(data + i * PAGE) == 77 && *(long *)(data + i * PAGE + 64) == i);
    close(file);
    free(local);
}

static void limit_of(pid_t id) {
    struct rlimit own, found, changed;
    CHECK(getrlimit(RLIMIT_NOFILE, &own) == 0);
    CHECK(prlimit(id, RLIMIT_NOFILE, 0, &found) == 0);
    CHECK(found.rlim_cur == own.rlim_cur && found.rlim_max == own.rlim_max);
    found.rlim_cur -= 10;
    CHECK(prlimit(id, RLIMIT_NOFILE, &found, 0) == 0);
    CHECK(getrlimit(RLIMIT_NOFILE, &changed) == 0 && changed.rlim_cur == own.rlim_cur - 10);
    CHECK(setrlimit(RLIMIT_NOFILE, &own) == 0);
}

static void tick(int signal) {}

// No signal cuts a copy between processes short.
static void begin_ticks(void) {
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 500}, {0, 500}};
    CHECK(sigaction(SIGALRM, &action, 0) == 0 && setitimer(ITIMER_REAL, &often, 0) == 0);
}

static void *thread(void *unused) {
    other = syscall(SYS_gettid);
    while (sem_wait(&over) != 0)
        ;
    return 0;
}

static int child(void *unused) {
    other = syscall(SYS_getpid);
    while (sem_wait(&over) != 0)
        ;
    syscall(SYS_exit, 0);
    return 0;
}

static pid_t await_other(void) {
    while (other == 0)
        sched_yield();
    return other;
}

int main(void) {
    data = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(data != MAP_FAILED && sem_init(&over, 0, 0) == 0);

    begin_ticks();
    copy_by(getpid());
    file_of(getpid());
    printf("this process\n");

    pthread_t id;
    CHECK(pthread_create(&id, 0, thread, 0) == 0);
    pid_t number = await_other();
    copy_by(number);
    file_of(number);
    limit_of(number);
    CHECK(sem_post(&over) == 0 && pthread_join(id, 0) == 0);
    printf("a thread\n");

    other = 0;
    char *stack = malloc(1 << 16);
    number = clone(child, stack + (1 << 16), CLONE_VM | SIGCHLD, 0);
    CHECK(number > 0 && await_other() == number);
    copy_by(number);
    file_of(number);
    int status;
    CHECK(sem_post(&over) == 0 && waitpid(number, &status, 0) == number && status == 0);
    printf("a process in the same memory\n");
}
