/* Asks for what cannot be had, and says what came of it: the same on every Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAY(call) (errno = 0, say(#call, (long)(call)))

static void say(const char *what, long result)
{
    if (result < 0)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: %ld\n", what, result);
    fflush(stdout);
}

static void paths(void)
{
    static char long_name[5000];
    memset(long_name, 'a', sizeof(long_name) - 1);
    mkdir("d", 0700), mkdir("d/e", 0700), mkdir("other", 0700);
    close(open("f", O_CREAT | O_RDWR, 0600));
    SAY(unlink("d"));
    SAY(rmdir("f"));
    SAY(rmdir("d"));
    SAY(unlinkat(AT_FDCWD, "d/e", 0));
    SAY(rename("d", "d/e/f"));
    SAY(rename("f", "other"));
    SAY(rename("other", "f"));
    SAY(rename("other", "d"));
    SAY(rename("d", "other"));
    SAY(rename("/", "everything"));
    SAY(renameat2(AT_FDCWD, "f", AT_FDCWD, "other", RENAME_NOREPLACE));
    SAY(mkdir("/proc/new", 0700));
    SAY(mkdir("/", 0700));
    SAY(mkdir("/proc", 0700));
    SAY(link("/proc/self/maps", "maps"));
    SAY(open(long_name, O_RDONLY));
    SAY(symlink("", "link"));
    SAY(truncate("f", -1));
}

static void files(void)
{
    int two[2], file = open("f", O_RDONLY);
    char text[64];
    struct iovec parts[] = { { text, 3 }, { text + 3, 3 } };
    SAY(ftruncate(file, 0));
    SAY(fallocate(file, 0, 0, 4096));
    SAY(pipe(two));
    SAY(write(two[1], "four", 4));
    SAY(readv(two[0], parts, 2));
    SAY(write(two[1], "two", 2));
    SAY(readv(two[0], parts, 2));
    SAY(readv(two[0], parts, 2000));
    SAY(pread(two[0], text, 1, 0));
    SAY(syscall(SYS_read, file, text, -1L));
    SAY(dup3(file, file, 0));
    SAY(fcntl(file, F_DUPFD, 1 << 24));
    SAY(pipe((int *)8));
    SAY(socketpair(AF_UNIX, SOCK_STREAM, 0, (int *)8));
    int next = dup(file);
    printf("%d numbers lost\n", next - two[1] - 1);
    close(two[0]), close(two[1]), close(file), close(next);
}

/* Flags that no call knows. */
static void flags(void)
{
    int two[2];
    pipe(two);
    SAY(syscall(SYS_pipe2, two, 1));
    SAY(syscall(SYS_eventfd2, 0, 2));
    SAY(syscall(SYS_epoll_create, 0));
    SAY(syscall(SYS_epoll_create1, 1));
    SAY(syscall(SYS_timerfd_create, CLOCK_MONOTONIC, 1));
    SAY(syscall(SYS_timerfd_create, 77, 0));
    SAY(syscall(SYS_close_range, 100, 200, 8));
    SAY(syscall(SYS_close_range, 200, 100, 0));
    SAY(lseek(two[0], 0, 99));
    SAY(lseek(two[0], 0, SEEK_SET));
    SAY(waitpid(-1, 0, 0x1000));
    SAY(waitpid(-1, 0, 0));
    SAY(syscall(SYS_wait4, -2147483648L, 0, 0, 0));
    SAY(waitid(P_ALL, 0, NULL, WEXITED | 0x1000));
    SAY(waitid(P_ALL, 0, NULL, 0));
    SAY(syscall(SYS_clone, SIGCHLD | CLONE_NEWNS | CLONE_FS, 0, 0, 0, 0));
    SAY(syscall(SYS_clone, SIGCHLD | CLONE_PIDFD | CLONE_PARENT_SETTID, 0, two, 0, 0));
    close(two[0]), close(two[1]);
}

/* A child runs though nobody can be told its number. */
static void untold(void)
{
    int child, status;
    for (int i = 0; i < 2; i++) {
        long flag = i ? CLONE_CHILD_SETTID : CLONE_PARENT_SETTID;
        child = syscall(SYS_clone, SIGCHLD | flag, 0, 8, 8, 0);
        if (child == 0)
            _exit(7);
        waitpid(child, &status, 0);
        printf("child: %d\n", WEXITSTATUS(status));
    }
}

/* The locks of a process end when any of its numbers of the file goes, however it goes. */
static void locks(void)
{
    struct flock lock = { .l_type = F_WRLCK, .l_len = 1 };
    int file = open("f", O_RDWR), null = open("/dev/null", O_RDWR);
    SAY(fcntl(file, F_SETLK, &lock));
    SAY(dup2(null, open("f", O_RDWR)) > 0);
    if (fork() == 0) {
        SAY(fcntl(file, F_GETLK, &lock));
        printf("%s\n", lock.l_type == F_UNLCK ? "free" : "locked");
        fflush(stdout);
        _exit(0);
    }
    wait(0);
}

static void memory(void)
{
    void *end = sbrk(0);
    SAY(syscall(SYS_brk, -1L) == (long)end);
    SAY(syscall(SYS_brk, -4096L) == (long)end);
    char *page = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SAY(mincore(page, 1L << 46, (unsigned char *)page));
}

static void messages(void)
{
    int two[2], sent = 0;
    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, two);
    while (sent < 1000000 && send(two[0], "", 0, 0) == 0)
        sent++;
    printf("messages without bytes: %s\n", strerrorname_np(errno));
}

static void processes(void)
{
    char stack[8192];
    stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) }, inherited;
    sigset_t all;
    int two[2], pid, status;
    SAY(syscall(SYS_tgkill, 1 << 22, getpid(), 0));
    SAY(syscall(SYS_tgkill, 0, getpid(), 0));
    SAY(syscall(SYS_clone, CLONE_THREAD | CLONE_VM, 0, 0, 0, 0));
    SAY(syscall(SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0));
    SAY(syscall(SYS_nanosleep, 0, 0));
    struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM };
    event._sigev_un._tid = 1 << 22;
    int timer;
    SAY(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer));
    sigaltstack(&alternate, 0);
    if (fork() == 0) {
        sigaltstack(0, &inherited);
        printf("alternate stack: %s\n", inherited.ss_sp == stack ? "inherited" : "lost");
        fflush(stdout);
        _exit(0);
    }
    wait(0);
    /* A parent that waits for the child of its vfork can be killed. */
    pipe(two);
    pid = fork();
    if (pid == 0) {
        if (vfork() == 0) {
            int own = getpid();
            write(two[1], &own, sizeof(own));
            pause();
            _exit(0);
        }
        _exit(0);
    }
    int child = 0;
    read(two[0], &child, sizeof(child));
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    printf("parent: signal %d\n", WTERMSIG(status));
    printf("child: %d\n", kill(child, SIGKILL));
}

int main(void)
{
    char directory[] = "/tmp/refusals.XXXXXX";
    if (!mkdtemp(directory) || chdir(directory))
        return 1;
    paths();
    files();
    flags();
    untold();
    locks();
    memory();
    messages();
    processes();
    unlink("f"), rmdir("other/e"), rmdir("other"), rmdir("d/e"), rmdir("d"), chdir("/");
    SAY(rmdir(directory));
    return 0;
}
