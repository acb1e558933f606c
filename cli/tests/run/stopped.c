/* Children that are stopped hold more memory than there is, each stopped somewhere else: in a call of its own,
   in a call that waits, in a loop, between accesses, one of two threads. Their parent needs memory meanwhile.
   Each child stays stopped until it is continued, tells its parent of nothing else, and finds its memory. */
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

enum { CHILDREN = 10, LEN = 3 << 20, PAGE = 4096 };

static volatile sig_atomic_t waits, ends, alarms;
static int ends_of_pipe[2], gate[2];

static char *memory(void)
{
    char *m = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(m != MAP_FAILED);
    return m;
}

static void fill(volatile char *m, int with)
{
    for (int i = 0; i < LEN; i += PAGE)
        m[i] = with + i / PAGE;
}

static int differs(volatile char *m, int with)
{
    int found = 0;
    for (int i = 0; i < LEN; i += PAGE)
        found += m[i] != (char)(with + i / PAGE);
    return found;
}

static void on_continued(int signal)
{
    (void)signal;
    ends = 1;
}

static void on_alarm(int signal)
{
    (void)signal;
    alarms++;
}

static void *stay(void *m)
{
    fill(m, 7);
    waits = 1;
    while (!ends)
        usleep(1000);
    return (void *)(long)differs(m, 7);
}

static void ready(void)
{
    CHECK(write(ends_of_pipe[1], "r", 1) == 1);
}

/* Stops as its number says. */
static int child(int number)
{
    char *m = memory(), *other = memory(), byte;
    long result = 0;
    pthread_t thread;
    struct timespec moment = {0, 20000000};
    signal(SIGCONT, on_continued);
    fill(m, number);
    switch (number % 5) {
    case 0: /* In its own call. */
        ready();
        raise(SIGSTOP);
        break;
    case 1: /* In a call that waits. */
        ready();
        CHECK(read(gate[0], &byte, 1) == 1);
        break;
    case 2: /* In a loop. */
        ready();
        while (!ends) {}
        break;
    case 3: /* Between accesses, most of which fault. */
        ready();
        while (!ends)
            fill(m, number);
        break;
    case 4: /* One of two threads, and a timer that goes on. */
        munmap(other, LEN);
        CHECK(!pthread_create(&thread, NULL, stay, other = memory()));
        while (!waits)
            usleep(1000);
        signal(SIGALRM, on_alarm);
        ready();
        while (!ends)
            nanosleep(&moment, NULL);
        CHECK(!pthread_join(thread, (void **)&result));
        break;
    }
    return result || differs(m, number);
}

int main(void)
{
    pid_t children[CHILDREN];
    char byte;
    int status;
    CHECK(!pipe(ends_of_pipe) && !pipe(gate));
    for (int i = 0; i < CHILDREN; i++) {
        if ((children[i] = fork()) == 0)
            _exit(child(i));
        CHECK(children[i] > 0 && read(ends_of_pipe[0], &byte, 1) == 1);
        CHECK(i % 5 == 0 || !kill(children[i], SIGSTOP));
        CHECK(waitpid(children[i], &status, WUNTRACED) == children[i] && WIFSTOPPED(status));
    }
    char *m = memory();
    for (int round = 0; round < 3; round++)
        fill(m, round);
    printf("the parent found %d differences\n", differs(m, 2));
    CHECK(waitpid(-1, &status, WNOHANG | WUNTRACED | WCONTINUED) == 0);
    for (int i = 0; i < CHILDREN; i++) {
        CHECK(!kill(children[i], SIGCONT));
        CHECK(i % 5 != 1 || write(gate[1], "g", 1) == 1);
        CHECK(waitpid(children[i], &status, 0) == children[i]);
        printf("child %d: status %x\n", i, status);
    }
    return 0;
}
