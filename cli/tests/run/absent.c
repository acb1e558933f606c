// What the kernel does by itself with the memory of a program, and what comes at once: each while
// the memory that it concerns is not there. Nothing printed depends on addresses or on time.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define PAGES 256ul

static char *map(void) {
    return mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static unsigned char byte_of(size_t page) { return (unsigned char)(page * 7 + 3); }

static char *filled(void) {
    char *start = map();
    for (size_t page = 0; page < PAGES; page++) memset(start + page * PAGE, byte_of(page), PAGE);
    return start;
}

// Pushes everything else out of memory.
static void press(void) {
    size_t len = 48 << 20;
    char *start = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int round = 0; round < 2; round++)
        for (size_t at = 0; at < len; at += PAGE) start[at + 8 * (at / PAGE % 512)] = (char)(at + round);
    munmap(start, len);
}

static const char *how_it_ended(pid_t child) {
    static char words[40];
    int status;
    waitpid(child, &status, 0);
    if (WIFEXITED(status)) snprintf(words, sizeof words, "exit %d", WEXITSTATUS(status));
    else snprintf(words, sizeof words, "signal %d", WTERMSIG(status));
    return words;
}

// Calls through the page that old programs jump to.
static void vsyscall(void) {
    long (*get_time)(struct timeval *, void *) = (void *)0xffffffffff600000;
    long (*seconds)(time_t *) = (void *)0xffffffffff600400;
    long (*processor)(unsigned *, unsigned *, void *) = (void *)0xffffffffff600800;
    char *memory = filled();
    struct timeval *now = (void *)(memory + 5 * PAGE);
    time_t *when = (void *)(memory + 9 * PAGE);
    unsigned *where = (void *)(memory + 13 * PAGE - 2);
    press();
    long answer = get_time(now, memory + 7 * PAGE);
    printf("gettimeofday: %ld, right: %d\n", answer, labs(now->tv_sec - time(NULL)) <= 60);
    press();
    answer = seconds(when);
    printf("time: %d, right: %d\n", answer == *when, labs(*when - time(NULL)) <= 60);
    press();
    answer = processor(where, NULL, NULL);
    printf("getcpu: %ld, right: %d\n", answer, *where < 1 << 16);
    fflush(stdout);
    pid_t child = fork();
    if (!child) _exit(seconds((void *)16) == 0);
    printf("a bad address: %s\n", how_it_ended(child));
    child = fork();
    if (!child) {
        mprotect(memory, PAGE, PROT_READ);
        _exit(seconds((void *)memory) == 0);
    }
    printf("memory that may only be read: %s\n", how_it_ended(child));
}

static size_t wrong(const char *bytes, const char *memory, size_t len) {
    size_t wrong = 0;
    for (size_t at = 0; at < len; at++) wrong += bytes[at] != memory[at];
    return wrong;
}

// The program's own memory as a file.
static void own_memory(void) {
    static char copy[PAGES * PAGE];
    int file = open("/proc/self/mem", O_RDWR);
    char *memory = filled();
    press();
    ssize_t done = pread(file, copy, sizeof copy, (off_t)memory);
    printf("read at: %zd, wrong: %zu\n", done, wrong(copy, memory, sizeof copy));
    press();
    lseek(file, (off_t)memory + 100, SEEK_SET);
    done = read(file, copy, 20000);
    printf("read: %zd, wrong: %zu\n", done, wrong(copy, memory + 100, 20000));
    printf("goes on at: %ld\n", (long)(lseek(file, 0, SEEK_CUR) - (off_t)memory));
    memset(copy, 'x', 10000);
    press();
    done = pwrite(file, copy, 10000, (off_t)memory + 50);
    printf("written: %zd, %d %d\n", done, memory[50] == 'x', memory[10049] == 'x');
    mprotect(memory, 4 * PAGE, PROT_READ);
    press();
    done = pwrite(file, "forced", 6, (off_t)memory + PAGE);
    printf("forced: %zd, %.6s\n", done, memory + PAGE);
    mprotect(memory, 4 * PAGE, PROT_NONE);
    press();
    done = pread(file, copy, 6, (off_t)memory + PAGE);
    printf("of what nobody may read: %zd, %.6s\n", done, copy);
    munmap(memory + 64 * PAGE, PAGE);
    press();
    done = pread(file, copy, 8 * PAGE, (off_t)memory + 60 * PAGE);
    printf("before a gap: %zd, wrong: %zu\n", done, wrong(copy, memory + 60 * PAGE, 4 * PAGE));
    done = pread(file, copy, PAGE, (off_t)memory + 64 * PAGE);
    printf("of a gap: %zd %s\n", done, strerrorname_np(errno));
}

static pthread_barrier_t both;
static pthread_mutex_t *shared;

static void make_robust(pthread_mutex_t *mutex) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(mutex, &attributes);
}

// Holds mutexes in its own memory, and between them in shared memory.
static void hold_four(int first) {
    char *own = filled();
    for (int number = first; number < first + 4; number++) {
        pthread_mutex_t *mutex = (void *)(own + number * 8 * PAGE);
        make_robust(mutex);
        pthread_mutex_lock(mutex);
        pthread_mutex_lock(&shared[number]);
    }
}

static void *other_thread(void *unused) {
    hold_four(4);
    pthread_barrier_wait(&both);
    for (;;) pause();
    return unused;
}

// A process that holds robust mutexes ends, or executes a program.
static void robust(void) {
    shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const char *ends[] = {"exit", "exec", "a bad access"};
    for (int how = 0; how < 3; how++) {
        for (int number = 0; number < 8; number++) make_robust(&shared[number]);
        fflush(stdout);
        pid_t child = fork();
        if (!child) {
            pthread_t thread;
            pthread_barrier_init(&both, NULL, 2);
            pthread_create(&thread, NULL, other_thread, NULL);
            hold_four(0);
            pthread_barrier_wait(&both);
            press();
            if (how == 1) execl("/bin/true", "true", NULL);
            if (how == 2) *(volatile char *)8 = 1;
            _exit(0);
        }
        printf("%s: %s:", ends[how], how_it_ended(child));
        for (int number = 0; number < 8; number++) printf(" %s", strerrorname_np(pthread_mutex_trylock(&shared[number])));
        printf("\n");
    }
}

static volatile int order[8], count;

static void note(int signal) { order[count++] = signal; }

// Signals that are all let in at once: each handler begins before the next one's first instruction.
static void together(void) {
    const int signals[] = {SIGSEGV, SIGUSR1, SIGBUS, SIGRTMIN, SIGSYS};
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    for (int number = 0; number < 5; number++) signal(signals[number], note);
    for (int round = 0; round < 3; round++) {
        count = 0;
        sigprocmask(SIG_SETMASK, &all, NULL);
        for (int number = 0; number < 5; number++) kill(getpid(), signals[number]);
        if (round) press();
        sigprocmask(SIG_SETMASK, &none, NULL);
        printf("handled:");
        for (int number = 0; number < count; number++) printf(" %d", order[number]);
        printf("\n");
    }
}

int main(int words, char **word) {
    const char *how = words > 1 ? word[1] : "";
    setvbuf(stdout, NULL, _IOLBF, 4096);
    if (!strcmp(how, "vsyscall")) vsyscall();
    else if (!strcmp(how, "own-memory")) own_memory();
    else if (!strcmp(how, "robust")) robust();
    else if (!strcmp(how, "together")) together();
    else return 2;
    return 0;
}
