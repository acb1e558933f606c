/* Waits in every way there is, and says what came of it: the same on every Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* Whether a wait took at least so long. How much longer depends on what else the host has to do. */
static const char *took(double since, double least)
{
    return now(CLOCK_MONOTONIC) - since < least ? "too early" : "in time";
}

/* Says a value at once, so that the order is the program's. */
static long say(long value)
{
    printf(" %ld", value);
    return value;
}

static volatile sig_atomic_t caught[65];
static void handler(int number) { caught[number]++; }

static void *write_later(void *fd)
{
    usleep(50000);
    if (write(*(int *)fd, "x", 1) != 1)
        abort();
    return 0;
}

static void polls(void)
{
    int ends[2];
    pthread_t writer;
    if (pipe(ends))
        abort();
    struct pollfd list[3] = {{ends[0], POLLIN, 0}, {ends[1], POLLOUT, 0}, {-1, POLLIN, 0}};
    double start = now(CLOCK_MONOTONIC);
    printf("poll: %d", poll(list, 1, 100));
    printf(" %s;", took(start, 0.1));
    printf(" %d", poll(list, 3, -1));
    printf(" %x %x %x;", list[0].revents, list[1].revents, list[2].revents);
    start = now(CLOCK_MONOTONIC);
    pthread_create(&writer, 0, write_later, &ends[1]);
    printf(" %d", poll(list, 1, -1));
    printf(" %x %s;", list[0].revents, took(start, 0.05));
    pthread_join(writer, 0);
    close(ends[1]);
    char byte;
    say(poll(list, 1, -1)), say(list[0].revents);
    say(read(ends[0], &byte, 1)), say(poll(list, 1, -1)), say(list[0].revents);
    list[0].fd = 999;
    say(poll(list, 1, -1)), say(list[0].revents);
    puts("");
    close(ends[0]);
}

static void selects(void)
{
    int ends[2];
    pthread_t writer;
    if (pipe(ends))
        abort();
    fd_set in, out;
    FD_ZERO(&in);
    FD_SET(ends[0], &in);
    FD_ZERO(&out);
    FD_SET(ends[1], &out);
    struct timeval time = {0, 100000};
    double start = now(CLOCK_MONOTONIC);
    printf("select: %d", select(ends[1] + 1, &in, 0, 0, &time));
    printf(" %d %s;", FD_ISSET(ends[0], &in) != 0, took(start, 0.1));
    FD_SET(ends[0], &in);
    printf(" %d", select(ends[1] + 1, &in, &out, 0, 0));
    printf(" %d %d;", FD_ISSET(ends[0], &in) != 0, FD_ISSET(ends[1], &out) != 0);
    pthread_create(&writer, 0, write_later, &ends[1]);
    FD_SET(ends[0], &in);
    struct timespec forever = {1000, 0};
    printf(" %d", pselect(ends[0] + 1, &in, 0, 0, &forever, 0));
    pthread_join(writer, 0);
    close(ends[0]);
    FD_SET(ends[0], &in);
    say(select(ends[0] + 1, &in, 0, 0, 0)), say(errno == EBADF);
    puts("");
    close(ends[1]);
}

static void epolls(void)
{
    int list = epoll_create1(0), pair[2], count = eventfd(3, EFD_SEMAPHORE);
    struct epoll_event event = {EPOLLIN, {.u64 = 7}}, found[4];
    pthread_t writer;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        abort();
    epoll_ctl(list, EPOLL_CTL_ADD, pair[0], &event);
    printf("epoll: %d;", epoll_wait(list, found, 4, 50));
    pthread_create(&writer, 0, write_later, &pair[1]);
    printf(" %d", epoll_wait(list, found, 4, -1));
    printf(" %x %d;", found[0].events, (int)found[0].data.u64);
    pthread_join(writer, 0);
    event.events = EPOLLIN | EPOLLET;
    epoll_ctl(list, EPOLL_CTL_MOD, pair[0], &event);
    printf(" %d", epoll_wait(list, found, 4, 0));
    printf(" %d;", epoll_wait(list, found, 4, 0));
    event = (struct epoll_event){EPOLLIN | EPOLLONESHOT, {.u64 = 8}};
    epoll_ctl(list, EPOLL_CTL_ADD, count, &event);
    printf(" %d", epoll_wait(list, found, 4, 0));
    printf(" %d", (int)found[0].data.u64);
    printf(" %d;", epoll_wait(list, found, 4, 0));
    say(epoll_ctl(list, EPOLL_CTL_ADD, count, &event)), say(errno == EEXIST);
    epoll_ctl(list, EPOLL_CTL_DEL, count, 0);
    uint64_t value;
    say(read(count, &value, 8)), say(value);
    value = 40;
    printf(" %zd\n", write(count, &value, 8));
    close(pair[1]);
    printf("hangup: %d", epoll_wait(list, found, 4, 0));
    printf(" %x\n", found[0].events);
    close(pair[0]), close(count), close(list);
}

static void sockets(void)
{
    int pair[2];
    char text[32] = "";
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair))
        abort();
    printf("packets:");
    say(send(pair[0], "first", 5, 0)), say(write(pair[0], "second", 6));
    say(read(pair[1], text, 2)), say(recv(pair[1], text + 2, 29, 0));
    printf(" %s", text);
    say(recv(pair[1], text, 32, MSG_DONTWAIT)), say(errno == EAGAIN);
    shutdown(pair[0], SHUT_WR);
    printf(" %zd", read(pair[1], text, 32));
    signal(SIGPIPE, handler);
    close(pair[1]);
    say(write(pair[0], "x", 1)), say(errno == EPIPE), say(caught[SIGPIPE]);
    puts("");
    close(pair[0]);
    /* With or without a network, it is a call that is known. */
    close(socket(AF_INET6, SOCK_STREAM, 0));
}

static void work(void)
{
    for (volatile int i = 0; i < 100000; i++)
        ;
}

static void timers(void)
{
    signal(SIGALRM, handler), signal(SIGVTALRM, handler), signal(SIGPROF, handler);
    struct itimerval once = {{0, 0}, {0, 50000}}, often = {{0, 20000}, {0, 20000}}, left, none = {0};
    sigset_t set, none_blocked;
    sigemptyset(&set), sigaddset(&set, SIGALRM), sigprocmask(SIG_BLOCK, &set, &none_blocked);
    double start = now(CLOCK_MONOTONIC);
    setitimer(ITIMER_REAL, &once, 0);
    sigsuspend(&none_blocked);
    sigprocmask(SIG_SETMASK, &none_blocked, 0);
    printf("timers: %d %s;", caught[SIGALRM], took(start, 0.05));
    setitimer(ITIMER_VIRTUAL, &often, 0);
    setitimer(ITIMER_PROF, &once, 0);
    /* How much work that is depends on where the host's ticks fall. */
    while (caught[SIGVTALRM] < 2 || caught[SIGPROF] < 1)
        work();
    printf(" %d;", caught[SIGPROF]);
    getitimer(ITIMER_VIRTUAL, &left);
    printf(" %d %d;", left.it_value.tv_usec > 0, (int)left.it_interval.tv_usec);
    setitimer(ITIMER_VIRTUAL, &none, &left);

    struct itimerspec after = {{0, 10000000}, {0, 10000000}};
    int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    uint64_t ends = 0;
    timerfd_settime(fd, 0, &after, 0);
    usleep(60000);
    say(read(fd, &ends, 8)), say(ends >= 5);
    close(fd);

    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    event.sigev_value.sival_int = 42;
    sigemptyset(&set), sigaddset(&set, SIGUSR1), sigprocmask(SIG_BLOCK, &set, 0);
    timer_t timer;
    siginfo_t info;
    if (timer_create(CLOCK_REALTIME, &event, &timer))
        abort();
    after = (struct itimerspec){{0, 0}, {0, 0}};
    clock_gettime(CLOCK_REALTIME, &after.it_value);
    after.it_value.tv_nsec += 50000000;
    if (after.it_value.tv_nsec >= 1000000000)
        after.it_value.tv_nsec -= 1000000000, after.it_value.tv_sec++;
    timer_settime(timer, TIMER_ABSTIME, &after, 0);
    printf(" %d", sigwaitinfo(&set, &info) == SIGUSR1);
    printf(" %d %d;", info.si_code == SI_TIMER, info.si_value.sival_int);
    struct timespec short_time = {0, 50000000};
    say(sigtimedwait(&set, &info, &short_time)), say(errno == EAGAIN);
    union sigval value = {.sival_int = 43};
    sigqueue(getpid(), SIGUSR1, value);
    printf(" %d", sigwaitinfo(&set, &info) == SIGUSR1);
    printf(" %d %d\n", info.si_code == SI_QUEUE, info.si_value.sival_int);
    timer_delete(timer);
}

#define SUM(u) ((u).ru_utime.tv_sec + (u).ru_stime.tv_sec + ((u).ru_utime.tv_usec + (u).ru_stime.tv_usec) / 1e6)

/* What each of the ways to ask says of the processor time used so far, in seconds. */
static double by_process(void) { return now(CLOCK_PROCESS_CPUTIME_ID); }
static double by_thread(void) { return now(CLOCK_THREAD_CPUTIME_ID); }
static double by_usage(void) { struct rusage usage; return getrusage(RUSAGE_SELF, &usage), SUM(usage); }
static double by_ticks(void) { struct tms t; return times(&t), (t.tms_utime + t.tms_stime) / (double)sysconf(_SC_CLK_TCK); }

/* Works until the time has been counted, however fast that is and however it is counted. */
static void work_for(double seconds, double (*used)(void))
{
    for (double start = used(); used() - start < seconds;)
        work();
}

/* A sleep that costs little processor time. Where the host gives a machine no time for a while, that
   may count as work: then another is tried. */
static void sleep_for_nothing(void)
{
    double before;
    do {
        before = by_process();
        usleep(100000);
    } while (by_process() - before > 0.05);
}

static void processor_time(void)
{
    work_for(0.1, by_process), work_for(0.1, by_thread), work_for(0.1, by_usage), work_for(0.1, by_ticks);
    printf("time: all count;");
    sleep_for_nothing();
    printf(" no sleep");
    struct rusage after;
    pid_t child = fork();
    if (child == 0) {
        work_for(0.1, by_usage);
        _exit(5);
    }
    siginfo_t info;
    int status;
    printf(" %d", waitid(P_PID, child, &info, WEXITED | WNOWAIT));
    printf(" %d %d", info.si_pid == child, info.si_status);
    struct rusage used;
    say(wait4(child, &status, 0, &used) == child), say(WEXITSTATUS(status));
    getrusage(RUSAGE_CHILDREN, &after);
    printf(" %d %d\n", SUM(used) >= 0.1, SUM(after) >= 0.1);
}

static void files(void)
{
    char name[] = "/tmp/waitingXXXXXX", other[64];
    int fd = mkstemp(name);
    struct stat stat;
    struct timespec when[2] = {{5, 6}, {7, 8}};
    fchmod(fd, 0640);
    futimens(fd, when);
    fstat(fd, &stat);
    printf("files: %o %d %d", stat.st_mode & 07777, (int)stat.st_mtim.tv_sec, (int)stat.st_mtim.tv_nsec);
    snprintf(other, sizeof other, "%s-link", name);
    link(name, other);
    fstat(fd, &stat);
    printf(" %d %d %d", (int)stat.st_nlink, access(name, X_OK), access(name, W_OK));
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5};
    printf(" %d", fcntl(fd, F_SETLK, &lock));
    int ready[2];
    char byte = 0;
    if (pipe(ready))
        abort();
    pid_t child = fork();
    if (child == 0) {
        lock.l_start = 14, lock.l_len = 1;
        if (fcntl(fd, F_SETLK, &lock) != -1 || errno != EAGAIN)
            _exit(1);
        if (fcntl(fd, F_GETLK, &lock) || lock.l_pid != getppid() || lock.l_start != 10)
            _exit(2);
        lock = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 15, .l_len = 0};
        if (fcntl(fd, F_SETLK, &lock))
            _exit(3);
        if (write(ready[1], &byte, 1) != 1)
            abort();
        lock = (struct flock){.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
        if (fcntl(fd, F_SETLKW, &lock))
            _exit(4);
        _exit(0);
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) == 1)
        usleep(50000); /* By then it most often waits. */
    close(ready[0]);
    lock = (struct flock){.l_type = F_UNLCK, .l_whence = SEEK_SET};
    printf(" %d", fcntl(fd, F_SETLK, &lock));
    int status;
    waitpid(child, &status, 0);
    printf(" %d", status);
    unlink(name), unlink(other);
    snprintf(other, sizeof other, "%s-fifo", name);
    printf(" %d", mkfifo(other, 0600));
    if (fork() == 0) {
        int writer = open(other, O_WRONLY);
        _exit(write(writer, "through", 7) != 7);
    }
    char text[16] = "";
    int reader = open(other, O_RDONLY);
    say(read(reader, text, 16));
    printf(" %s", text);
    wait(&status);
    unlink(other);
    prctl(PR_SET_NAME, "a name of more than 15");
    prctl(PR_GET_NAME, text);
    printf(" %d %s\n", status, text);
}

int main(void)
{
    setvbuf(stdout, 0, _IONBF, 0);
    polls();
    selects();
    epolls();
    sockets();
    timers();
    processor_time();
    files();
    return 0;
}
