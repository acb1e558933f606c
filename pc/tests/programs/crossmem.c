/* Another process's memory: process_vm_readv and process_vm_writev, /proc/PID/mem, ptrace. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { P = 4096 };
static char *p;

static void say(const char *what, long n) { n < 0 ? printf("%s: %s\n", what, strerrorname_np(errno)) : printf("%s: %ld\n", what, n); }
static void state(const char *what, int s) { printf("%s: %s %d\n", what, WIFSTOPPED(s) ? "stopped" : WIFSIGNALED(s) ? "killed" : "exit", WIFSTOPPED(s) ? WSTOPSIG(s) : WIFSIGNALED(s) ? WTERMSIG(s) : WEXITSTATUS(s)); }

static void at_once(void) {
    int ready[2], go[2];
    pipe(ready), pipe(go);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 4; i++) memset(p + i * P, 'a' + i, P);
        munmap(p + 4 * P, P);
        mprotect(p + 5 * P, P, PROT_READ);
        mprotect(p + 6 * P, P, PROT_NONE);
        mprotect(p + 7 * P, P, PROT_WRITE);
        mmap(p + 299 * P, P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
        write(ready[1], "", 1);
        char c;
        read(go[0], &c, 1);
        _exit(p[10] + p[3 * P]);
    }
    char c, buf[8 * P];
    read(ready[0], &c, 1);
    struct iovec own[3] = { { buf, 10 }, { buf + 100, P }, { buf + P, 5 * P } }, other[3] = { { p + P - 5, 10 }, { p + 2 * P, 5 }, { p + 3 * P - 1, P } };
    say("read", process_vm_readv(child, own, 3, other, 3, 0));
    printf("%.10s %.6s %c\n", buf, buf + 100, buf[100 + P - 1]);
    struct iovec all = { buf, 8 * P }, whole = { p, 8 * P };
    say("read over a hole", process_vm_readv(child, &all, 1, &whole, 1, 0));
    whole.iov_base = p + 4 * P;
    say("read from a hole", process_vm_readv(child, &all, 1, &whole, 1, 0));
    whole.iov_base = p + 5 * P, whole.iov_len = P;
    say("read what may be read", process_vm_readv(child, &all, 1, &whole, 1, 0));
    say("write what may be read", process_vm_writev(child, &all, 1, &whole, 1, 0));
    whole.iov_base = p + 6 * P;
    say("read what is forbidden", process_vm_readv(child, &all, 1, &whole, 1, 0));
    whole.iov_base = p + 7 * P;
    say("read what may only be written", process_vm_readv(child, &all, 1, &whole, 1, 0));
    say("write what may only be written", process_vm_writev(child, &all, 1, &whole, 1, 0));
    whole.iov_base = p + 298 * P;
    say("read below a stack", process_vm_readv(child, &all, 1, &whole, 1, 0));
    buf[0] = 3, whole.iov_base = p + 10, whole.iov_len = 1;
    say("write", process_vm_writev(child, &all, 1, &whole, 1, 0));
    say("flags", process_vm_readv(child, &all, 1, &whole, 1, 1));
    say("of nobody", process_vm_readv(0x7ffffff0, &all, 1, &whole, 1, 0));
    say("nothing", process_vm_readv(child, &all, 0, &whole, 1, 0));
    say("too many", process_vm_readv(child, &all, 1, &whole, 2000, 0));
    struct iovec bad = { (void *)8, P };
    say("into nowhere", process_vm_readv(child, &bad, 1, &whole, 1, 0));
    say("of itself", process_vm_readv(getpid(), &all, 1, &(struct iovec){ p, P }, 1, 0));

    char name[64];
    sprintf(name, "/proc/%d/mem", child);
    int fd = open(name, O_RDWR);
    say("mem", pread(fd, buf, 10, (off_t)(long)(p + P)));
    printf("%.10s\n", buf);
    say("mem over a hole", pread(fd, buf, 2 * P, (off_t)(long)(p + 3 * P)));
    say("mem of a hole", pread(fd, buf, 10, (off_t)(long)(p + 4 * P)));
    buf[0] = 4;
    say("mem, written", pwrite(fd, buf, 1, (off_t)(long)(p + 3 * P)));
    write(go[1], "", 1);
    int status;
    waitpid(child, &status, 0);
    state("child", status);
    say("mem of the dead", pread(fd, buf, 10, (off_t)(long)(p + P)));
    close(fd);
}

static void traced(void) {
    say("peek at nobody", ptrace(PTRACE_PEEKDATA, 0x7ffffff0, p, 0));
    pid_t child = fork();
    if (child == 0) {
        printf("traced %ld, again %s\n", ptrace(PTRACE_TRACEME, 0, 0, 0), ptrace(PTRACE_TRACEME, 0, 0, 0) < 0 ? strerrorname_np(errno) : "ok"), fflush(stdout);
        *(long *)p = 0x1234;
        raise(SIGSTOP);
        printf("child sees %lx\n", *(long *)p), fflush(stdout);
        signal(SIGUSR1, SIG_IGN);
        raise(SIGUSR1);
        kill(getpid(), SIGTERM);
        puts("not killed"), fflush(stdout);
        *(volatile char *)8 = 1;
        _exit(9);
    }
    int s;
    waitpid(child, &s, 0), state("first", s);
    printf("waited for twice: %d\n", waitpid(child, &s, WNOHANG));
    errno = 0;
    printf("peek %lx\n", ptrace(PTRACE_PEEKDATA, child, p, 0));
    say("peek at nothing", ptrace(PTRACE_PEEKDATA, child, (void *)8, 0));
    say("poke", ptrace(PTRACE_POKEDATA, child, p, 0x5678));
    say("poke at nothing", ptrace(PTRACE_POKEDATA, child, (void *)8, 0));
    say("cont", ptrace(PTRACE_CONT, child, 0, 0));
    waitpid(child, &s, 0), state("ignored", s);
    say("cont", ptrace(PTRACE_CONT, child, 0, SIGUSR1));
    waitpid(child, &s, 0), state("deadly", s);
    say("cont without it", ptrace(PTRACE_CONT, child, 0, 0));
    waitpid(child, &s, 0), state("fault", s);
    say("cont with it", ptrace(PTRACE_CONT, child, 0, SIGSEGV));
    waitpid(child, &s, 0), state("end", s & 0x7f);
    say("cont of the dead", ptrace(PTRACE_CONT, child, 0, 0));

    child = fork();
    if (child == 0) for (;;) pause();
    say("attach", ptrace(PTRACE_ATTACH, child, 0, 0));
    say("attach twice", ptrace(PTRACE_ATTACH, child, 0, 0));
    waitpid(child, &s, 0), state("attached", s);
    say("detach", ptrace(PTRACE_DETACH, child, 0, 0));
    say("peek", ptrace(PTRACE_PEEKDATA, child, p, 0));
    kill(child, SIGKILL);
    waitpid(child, &s, 0), state("killed", s);

    child = fork();
    if (child == 0) { ptrace(PTRACE_TRACEME, 0, 0, 0); execl("/proc/self/exe", "crossmem", "end", (char *)0); _exit(1); }
    waitpid(child, &s, 0), state("executed", s);
    say("kill", ptrace(PTRACE_KILL, child, 0, 0));
    waitpid(child, &s, 0), state("killed", s);
}

int main(int count, char **names) {
    if (count > 1) return 5;
    setvbuf(stdout, 0, _IOLBF, 0);
    p = mmap(0, 300 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(p + 8 * P, 292 * P);
    at_once();
    traced();
}
