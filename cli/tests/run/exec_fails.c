/* Execs that fail while signals come faster than an exec is prepared: each fails, no signal is lost for good,
   and the signals that a program blocks stay blocked in what it executes. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXECS = 300 };

static volatile sig_atomic_t alarms;
static char *words[] = {"x", NULL};

/* The next one is due some time after this one was handled, so that a slow machine goes on too. */
static void on_alarm(int signal)
{
    static const struct itimerval soon = {{0, 0}, {0, 100}};
    (void)signal;
    alarms++;
    setitimer(ITIMER_REAL, &soon, NULL);
}

static void fail(void)
{
    int failed = 0;
    raise(SIGALRM);
    for (int i = 0; i < EXECS; i++)
        failed += execv("./text", words) == -1 && errno == ENOEXEC;
    int before = alarms;
    while (alarms == before)
        ;
    signal(SIGALRM, SIG_IGN);
    printf("%d failed\n", failed);
}

/* What the next program inherits, with signals of ours in it and signals that wait. */
static void tell(void)
{
    sigset_t mask, pending;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    sigpending(&pending);
    for (int signal = 1; signal < 65; signal++)
        if (sigismember(&mask, signal) || sigismember(&pending, signal))
            printf(" %d%s", signal, sigismember(&pending, signal) ? " waits" : "");
    puts("");
}

static void inherit(char *program)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGSEGV);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    raise(SIGUSR1);
    char *next[] = {program, "told", NULL};
    execv(program, next);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        tell();
        return 0;
    }
    int text = open("text", O_CREAT | O_WRONLY | O_TRUNC, 0755);
    write(text, "words\n", 6);
    fchmod(text, 0755);
    close(text);
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    fail();
    fflush(stdout);
    for (int i = 0; i < 10; i++) {
        pid_t child = fork();
        if (child == 0) {
            inherit("/proc/self/exe");
            _exit(99);
        }
        int status;
        waitpid(child, &status, 0);
        printf("status %x\n", status);
        fflush(stdout);
    }
    unlink("text");
    return 0;
}
